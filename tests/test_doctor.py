"""The doctor: no false alarm on healthy models, batches in every form, and its command."""

import json
import shutil
import sys

import foreign
import healthy
import pytest
import torch
from museum.strangers import DeepEncoder, LSTMClassifier, LSTMWithAttention, TinyGPT, Translator17
from tiny_tasks import run_files, write_texts
from torch import nn
from variants import VARIANTS

from dragoman.cli import main
from dragoman.inspect.doctor import Report, Severity, examine
from dragoman.inspect.doctor.batch import BatchError
from dragoman.inspect.doctor.opening import open_models
from dragoman.presets import PRESETS
from dragoman.train.recipe import load
from dragoman.train.run import start

TORCH = healthy.torch_models()
FAMILIES = [
    (name, size)
    for name, makes in (foreign.MODELS | foreign.ENCODERS).items()
    if name != foreign.TOWERS  # no batch is guessed for it: it reads texts and images
    for size in range(len(makes))
]
QUICK = [
    "transformer-tiny", "transformer-2026", "lm-tiny", "lm-tiny-2019", "gpt2", "bert-base", "vit-base", "t5-small",
    "mamba-small", "lstm-luong", "classifier-tiny", "clip-tiny",
]  # fmt: skip
"""Presets that are examined in every test run; the others in slow ones."""


def told(report):
    return [(f.severity.value, f.check, f.where, f.title, f.evidence) for f in report.findings]


def assert_healthy(model, batch=None, **options):
    report = examine(model, batch, **options)
    assert not report.errors, told(report)
    assert len(report.passed) >= 8
    raised = [skipped for skipped in report.skipped if "raised" in skipped.reason]
    assert not raised


# ---- healthy models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
def test_pytorchs_own_modules_have_no_error(name):
    assert_healthy(healthy.quietly(TORCH[name]))


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_families_of_transformers_have_no_error(name, size):
    model = healthy.quietly(lambda: healthy.of_transformers(name, size))
    if (getattr(model.config, "rope_parameters", None) or {}).get("rope_type") == "longrope":
        # transformers turns all rows of a batch by the length of the longest: padding does make a difference there
        assert {found.check for found in examine(model).errors} <= {"padding leak"}
    else:
        assert_healthy(model)


@pytest.mark.parametrize("name", QUICK)
def test_presets_have_no_error(name):
    assert_healthy(healthy.quietly(lambda: healthy.small_preset(name)))


SMALL = {
    json.dumps(healthy.shrunk(PRESETS[name]()["model"])): name for name in [*sorted(PRESETS, reverse=True), *QUICK]
}
"""One preset for each small copy: some differ in nothing but sizes, which all copies share."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SMALL.values()) - set(QUICK)))
def test_the_other_presets_have_no_error(name):
    assert_healthy(healthy.quietly(lambda: healthy.small_preset(name)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["decoder-only", "encoder-decoder"])
@pytest.mark.parametrize("name", sorted(VARIANTS)[::12])
def test_variants_of_every_part_have_no_error(name, shape):
    model = healthy.quietly(lambda: VARIANTS[name].config(shape).build())
    report = examine(model)
    assert not report.errors, told(report)


def test_at_least_thirty_healthy_models_are_examined():
    assert len(TORCH) + len(FAMILIES) + len(PRESETS) >= 30


# ---- batches -------------------------------------------------------------------------------------------

IDS = torch.randint(1, 25, (3, 11), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "batch",
    [
        IDS,
        (IDS,),
        [IDS],
        {"idx": IDS},
        (IDS, IDS.roll(-1, 1)),
        {"idx": IDS, "labels": IDS.roll(-1, 1)},
        (IDS, torch.ones(3, 11)),
        {"idx": IDS, "keep": torch.ones(3, 11, dtype=torch.bool)},
    ],
    ids=["tensor", "tuple", "list", "mapping", "labels last", "labels by name", "mask", "mask by name"],
)
def test_a_batch_may_be_a_tensor_arguments_in_order_or_by_name(batch):
    assert_healthy(TinyGPT(), batch)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ("text", "pass a tensor, a tuple"),
        (3, "pass a tensor, a tuple"),
        ({}, "holds no ids"),
        ((), "pass a tensor, a tuple"),
        (torch.tensor(1), "holds no ids"),
        ((IDS, IDS, IDS, IDS, IDS), "has 5 parts, but TinyGPT.forward takes 3"),
        ({"idx": IDS, "masks": IDS}, "'masks', which TinyGPT.forward does not take"),
        (IDS.float(), "does not run on this batch"),
        (torch.zeros(2, 3, 4, 5), "does not run on this batch"),
    ],
)
def test_a_batch_of_a_wrong_type_is_told_what_to_pass(batch, says):
    with pytest.raises(BatchError, match=says) as told:
        examine(TinyGPT(), batch)
    assert "\n" not in str(told.value)


def test_a_model_whose_batch_cannot_be_guessed_is_told_what_to_pass():
    with pytest.raises(BatchError, match=r"forward\(idx, keep, past\): pass --inputs"):
        examine(TinyGPT())


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.gpt, self.value = TinyGPT(layers=2), nn.Linear(31, 1)

    def forward(self, tokens):
        logits = self.gpt(tokens)[0]
        return logits, self.value(logits).squeeze(-1)


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.out = nn.Embedding(31, 16), nn.LSTM(16, 16), nn.Linear(16, 31)

    def forward(self, ids):
        y, state = self.lstm(self.embed(ids))
        return self.out(y), state


def test_a_model_with_two_outputs_is_examined():
    assert_healthy(TwoOutputs(), IDS, causal=True)


def test_a_model_with_time_first_is_healthy_where_it_says_so_and_else_its_rows_depend_on_each_other():
    assert_healthy(TimeFirst(), IDS.T.contiguous(), batch_dim=1)
    report = examine(TimeFirst(), IDS)
    assert any(f.check == "rows" and f.where == "lstm" and "batch_dim" in f.remedy for f in report.errors), told(report)


@pytest.mark.parametrize("make", [TinyGPT, lambda: nn.LSTM(8, 8, batch_first=True)])
def test_a_model_in_bfloat16_is_healthy(make):
    model = make().bfloat16()
    assert_healthy(model, IDS if isinstance(model, TinyGPT) else None)


def test_models_of_strangers_are_healthy():
    torch.manual_seed(0)
    for model, batch in (
        (TinyGPT(), IDS),
        (DeepEncoder(), (IDS, torch.tensor([0, 1, 2]))),
        (LSTMWithAttention(), IDS),
        (LSTMClassifier(), {"ids": IDS, "attention_mask": torch.ones(3, 11)}),
        (healthy.quietly(Translator17), (IDS, IDS[:, 2:])),
    ):
        assert_healthy(model, batch)


def test_a_batch_that_is_known_by_heart_need_not_be_learned():
    torch.manual_seed(0)
    model, ids = TinyGPT(layers=1), IDS[:1]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(ids)[0].flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
        optimizer.step()
    assert not examine(model, (ids, ids.roll(-1, 1)), checks=["one batch"]).errors


class Odd(nn.Module):
    """Returns what ``change`` makes of its logits."""

    def __init__(self, change):
        super().__init__()
        self.embed, self.change = nn.Embedding(31, 8), change

    def forward(self, ids):
        return self.change(self.embed(ids))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda y: y.mean(), "returns a number, no tensor with the rows of the batch"),
        (lambda y: "text", "returns a str, no tensor"),
        (lambda y: y[0, 0], r"returns a tensor of shape \(8,\)"),
        (lambda y: None, "returns a NoneType"),
        (lambda y: y.no_such_method(), "does not run on this batch: AttributeError"),
    ],
)
def test_a_model_that_returns_no_outputs_is_told_so(change, says):
    with pytest.raises(BatchError, match=says):
        examine(Odd(change), IDS)


@pytest.mark.parametrize(
    "change",
    [
        lambda y: {"logits": y},
        lambda y: {"anything": y, "loss": y.mean()},
        lambda y: (y.mean(), y),
        lambda y: [y, None, "text"],
        lambda y: y.double(),
        lambda y: y.transpose(0, 1).transpose(0, 1),
    ],
)
def test_outputs_are_found_in_what_a_model_returns(change):
    assert_healthy(Odd(change), IDS)


@pytest.mark.parametrize(
    "batch",
    [IDS[:1], IDS[:, :1], IDS[:, :2], torch.full((3, 8), 4), IDS.int(), IDS[:, :3].repeat(3, 1)[:3, :3]],
    ids=["one row", "one position", "two positions", "one id", "int32", "as many rows as positions"],
)
def test_a_small_batch_raises_no_alarm(batch):
    assert not examine(TinyGPT(), batch).errors


def test_torchscript_is_told_that_it_cannot_be_watched():
    with pytest.warns(DeprecationWarning):
        script = torch.jit.script(nn.Linear(3, 3))
    with pytest.raises(BatchError, match="TorchScript"):
        examine(script, torch.randn(2, 3))


def test_weights_that_are_not_finite_are_one_finding_and_not_six():
    model = TinyGPT()
    model.blocks[2].mlp[0].weight.data[0, 0] = float("nan")
    report = examine(model, IDS)
    assert [(f.check, f.where) for f in report.errors] == [("corners", "blocks.2.mlp.0")], told(report)


def test_it_may_be_called_where_gradients_are_switched_off():
    with torch.no_grad():
        assert_healthy(TinyGPT(), (IDS, IDS.roll(-1, 1)))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: nn.Sequential(m)])
def test_a_model_in_a_wrapper_is_examined(wrap):
    report = examine(wrap(TwoOutputs()), IDS, causal=True)
    assert not report.errors, told(report)


def test_the_model_is_left_as_it_was():
    model = TinyGPT().train()
    model.blocks[1].eval()
    model(IDS)[0].sum().backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    examine(model, (IDS, IDS.roll(-1, 1)))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training and model.blocks[0].training and not model.blocks[1].training
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) and torch.equal(p.grad, gradients[name])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_same_examination_gives_the_same_report():
    assert examine(TinyGPT("no_causal_mask"), IDS, causal=True).findings
    torch.manual_seed(1)
    model = TinyGPT("mask_off_by_one")
    assert examine(model, IDS) == examine(model, IDS)


def test_what_a_bug_looks_like_is_told_from_the_pattern_of_gradients():
    causes = {
        bug: examine(TinyGPT(bug), IDS, checks=["future leak"]).errors[0].cause
        for bug in ("mask_off_by_one", "mask_turned_around", "no_causal_mask")
    }
    assert "one place too far" in causes["mask_off_by_one"]
    assert "turned around" in causes["mask_turned_around"]
    assert "no causal mask" in causes["no_causal_mask"]


def test_a_model_of_which_nothing_says_that_it_writes_gets_a_note_and_no_error():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.deep = TinyGPT("no_causal_mask")

        def forward(self, ids):
            return self.deep(ids)[0]

    report = examine(Reader(), IDS, checks=["future leak"])
    assert [f.severity for f in report.findings] == [Severity.note]
    assert examine(Reader(), IDS, causal=True, checks=["future leak"]).errors


# ---- the command ---------------------------------------------------------------------------------------

MODULE = """
import torch
from museum.strangers import TinyGPT

def build():
    torch.manual_seed(0)
    return TinyGPT()

def leaky():
    return TinyGPT("no_causal_mask")

def batch():
    ids = torch.randint(1, 25, (3, 11), generator=torch.Generator().manual_seed(2))
    return ids[:, :-1], ids[:, 1:]

def broken():
    raise RuntimeError("no weights\\nhere")

def loss(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0])[0].flatten(0, 1), batch[1].flatten())

def optimizer(model):
    return torch.optim.Adam(model.parameters())

model = TinyGPT()
number = 3
facts = {"train": ["a", "b"], "test": ["a"]}
wrong_facts = {"trian": 1}

def no_batch():
    return "text"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "strange.py").write_text(MODULE)
    (tmp_path / "faulty.py").write_text("import torch\n\nx = 1 / 0\n")
    (tmp_path / "unfinished.py").write_text("def f(:\n")
    yield tmp_path
    for name in ("strange", "faulty", "unfinished"):
        sys.modules.pop(name, None)


def test_a_healthy_model_of_a_module_in_the_current_folder_gives_0(here, capsys):
    command = "doctor strange:build --inputs strange:batch"
    assert main(command.split()) == 0
    assert "passed" in capsys.readouterr().out


def test_an_error_gives_1_and_names_its_place_evidence_cause_and_remedy(here, capsys):
    assert main(["doctor", "strange:leaky", "--inputs", "strange:batch"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "outputs depend on later tokens" in out and "blocks.0.attn" in out
    for label in ("where", "evidence", "cause", "remedy"):
        assert label in out


def test_json_holds_the_report(here, capsys):
    assert main(["doctor", "strange.py:leaky", "--inputs", "strange:batch", "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert report["model"] == "TinyGPT"
    assert report["findings"][0] == report["findings"][0] | {"check": "future leak", "severity": "error"}
    assert {"title", "evidence", "numbers", "cause", "remedy", "where"} <= report["findings"][0].keys()


def test_a_warning_and_a_note_give_0(here, capsys):
    command = "doctor strange:model --inputs strange:batch --optimizer strange:optimizer --loss strange:loss"
    assert main(command.split()) == 0
    assert "never falls" in capsys.readouterr().out


def test_facts_make_more_checks_possible(here, capsys):
    assert main(["doctor", "strange:model", "--inputs", "strange:batch", "--facts", "strange:facts"]) == 1
    assert "held-out examples were trained on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("nosuchrun", "nosuchrun: no run, run file or preset of this name"),
        ("transformer-tiyn", "or the preset transformer-tiny?"),
        ("nosuch.yaml", "nosuch.yaml"),
        ("nomodule:build", "no module nomodule in"),
        ("nofile.py:build", "no module nofile.py"),
        (":build", "write MODULE:NAME"),
        ("strange:biuld", "no 'biuld' in strange: did you mean build?"),
        ("strange:", "no '' in strange"),
        ("strange:broken", "strange:broken: strange.py:17: RuntimeError: no weights"),
        ("faulty:build", "faulty:build: faulty.py:3: ZeroDivisionError: division by zero"),
        ("unfinished:f", "unfinished.py:1: SyntaxError"),
        ("strange:number", "strange:number: is a int: it must be a function"),
        ("strange:batch", "gives a tuple: it must be or return a torch.nn.Module"),
        ("strange:model", "cannot guess a batch for TinyGPT.forward(idx, keep, past): pass --inputs"),
        ("strange:model --inputs strange:no_batch", "the batch is a str: pass a tensor"),
        ("strange:model --inputs strange:none", "no 'none' in strange"),
        ("strange:model --inputs strange:broken", "strange.py:17: RuntimeError"),
        ("strange:model --inputs strange:batch --loss strange:number", "is a int: it must be a function"),
        ("strange:model --inputs strange:batch --loss strange:broken", "the loss cannot be computed on this batch"),
        ("strange:model --inputs strange:batch --optimizer strange:batch", "strange:batch: TypeError"),
        ("strange:model --inputs strange:batch --facts strange:wrong_facts", "trian: it must be a dictionary with"),
        ("strange:model --inputs strange:batch --facts strange:number", "int: it must be a dictionary with"),
        (
            "strange:model --inputs strange:batch --check ids_in_range",
            "no 'ids_in_range' here. Did you mean 'ids in range'",
        ),
        (".", "not a run directory"),
    ],
)
def test_bad_input_is_told_in_one_line(command, says, here, capsys):
    assert main(["doctor", *command.split()]) == 2
    err = capsys.readouterr().err.strip()
    assert says in err
    assert err.startswith("dragoman: ") and len(err.splitlines()) == 1


def test_a_folder_of_transformers_is_told_to_be_imported(here, capsys):
    (here / "folder").mkdir()
    (here / "folder" / "config.json").write_text("{}")
    assert main(["doctor", "folder"]) == 2
    assert "import it first (dragoman import folder)" in capsys.readouterr().err


def test_a_report_is_plain_data(here):
    report = examine(TinyGPT(), IDS)
    assert isinstance(report, Report)
    json.dumps(report.to_dict())


# ---- held-out examples of runs --------------------------------------------------------------------------

HELD_OUT = {
    "translation": 0, "classification": 0, "tagging": 0, "question_answering": 0, "contrastive": 0, "captioning": 1,
    "frames": 1, "images": 1,
}  # fmt: skip
"""Tasks whose runs keep their test set, and whether as rows of ids or numbers; else as lines."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    write_texts(folder)
    return run_files(folder)


@pytest.mark.parametrize("task", HELD_OUT)
def test_a_run_is_asked_whether_its_test_set_was_trained_on(task, files, tmp_path):
    """Here the test set is the validation set, which runs keep in both forms, or a part of the training set."""
    budget = {"budget": {"kind": "steps", "steps": 1}, "precision": "float32"}
    list(start(load(files[task] | {"train": files[task]["train"] | budget}), tmp_path / "run").events())
    data, as_rows = tmp_path / "run" / "data", HELD_OUT[task]

    def facts():
        return open_models(str(tmp_path / "run"))[0].facts

    assert len(facts().train) > len(facts().test) > 0
    valid, rows = facts().test[: len(facts().test) // 2], data / "test"
    if as_rows:
        shutil.rmtree(rows)
        shutil.copytree(data / "valid", rows)
    else:
        shutil.copy(data / "valid.jsonl", data / "test.jsonl")
    assert facts().test == [*valid, *valid]
    if as_rows:
        shutil.rmtree(rows)
        shutil.copytree(data / "train", rows)
        assert set(facts().train) <= set(facts().test)
    else:
        (data / "test.jsonl").write_text("no line of this kind\n")
        assert facts().test == valid, "what can be read is compared"
    assert len({part for row in valid for part in row[:1]}) == len(valid), "numbers are not rounded"


# ---- labels of padding ---------------------------------------------------------------------------------


def examined_loss(label, ignored, *, pad_rows=True):
    """Findings about padding, where it is labelled ``label`` in the batch and the loss ignores ``ignored``."""
    ids = torch.randint(1, 25, (3, 12), generator=torch.Generator().manual_seed(3))
    inputs, labels = ids[:, :-1].clone(), ids[:, 1:].clone()
    if pad_rows:
        inputs[1:, 8:], labels[1:, 8:] = 0, label

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0])[0].flatten(0, 1), batch[1].flatten(), ignore_index=ignored)

    report = examine(TinyGPT(), (inputs, labels), loss=loss, pad=0)
    return [found for found in report.findings if found.title == "the loss counts padding"]


@pytest.mark.parametrize("label", [0, -100])
def test_a_loss_that_ignores_the_label_of_padding_is_right(label):
    assert not examined_loss(label, label)


def test_a_loss_that_counts_the_label_of_padding_is_an_error():
    (found,) = examined_loss(0, -100)
    assert found.severity == Severity.error and found.remedy.startswith("pass ignore_index=0")


def test_where_the_batch_does_not_say_how_padding_is_labelled_a_loss_may_be_right():
    assert not examined_loss(None, 0, pad_rows=False)
    (found,) = examined_loss(None, -100, pad_rows=False)
    assert found.severity == Severity.warning and found.remedy.startswith("where its label is -100, nothing")
    (found,) = examined_loss(None, 24, pad_rows=False)
    assert found.severity == Severity.error


# ---- as many rows as positions -------------------------------------------------------------------------


class Reader(nn.Module):
    """A classifier with a padding mask, 1 on padding."""

    def __init__(self, looks: bool):
        super().__init__()
        self.embed, self.output, self.looks = nn.Embedding(30, 8), nn.Linear(8, 3), looks
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.positions = nn.Embedding(20, 8)

    def forward(self, ids, padding_mask):
        x = self.embed(ids) + self.positions.weight[: ids.shape[1]]
        x = self.layer(x, src_key_padding_mask=None if self.looks else padding_mask)
        kept = (~padding_mask)[..., None].float()
        return self.output((x * kept).sum(1) / kept.sum(1).clamp(min=1))


@pytest.mark.parametrize("rows", [5, 8])
def test_a_padding_mask_is_known_in_a_batch_of_as_many_rows_as_positions(rows):
    mask = torch.arange(8).expand(rows, 8) >= torch.arange(8, 8 - rows, -1)[:, None].clamp(min=4)
    batch = torch.randint(1, 30, (rows, 8), generator=torch.Generator().manual_seed(1)), mask
    torch.manual_seed(0)
    assert_healthy(Reader(looks=False), batch)
    assert {found.check for found in examine(Reader(looks=True), batch).errors} >= {"padding leak"}


def test_a_causal_mask_of_a_square_batch_stays_positions_by_positions():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.output = nn.Embedding(30, 8), nn.Linear(8, 30)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
            self.positions = nn.Embedding(20, 8)

        def forward(self, ids, attn_mask):
            return self.output(self.layer(self.embed(ids) + self.positions.weight[: ids.shape[1]], attn_mask))

    ids = torch.randint(1, 30, (8, 8), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    assert_healthy(Masked(), (ids, torch.ones(8, 8, dtype=torch.bool).triu(1)), causal=True)
