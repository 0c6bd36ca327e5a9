"""dragoman verify: whole models pass, and each row of its table fails when what it is about is broken."""

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tiny_tasks
import torch

import dragoman
from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.config import merge, to_dict
from dragoman.data.material import ImageMaterial
from dragoman.decode import precision
from dragoman.decode.constraints.beginning import ForcedBeginning
from dragoman.decode.readers.input_reader import InputReader
from dragoman.decode.search.ranking import log_prob_of
from dragoman.decode.search.search import SearchBatch
from dragoman.decode.verify import inputs as asking
from dragoman.decode.verify import reading, writing
from dragoman.decode.verify.checks import Check, run_checks, within
from dragoman.decode.verify.opening import open_run
from dragoman.decode.verify.reading import ReadingVerifier, random_inputs
from dragoman.decode.verify.writing import WritingVerifier, random_rows
from dragoman.model import attention, tower
from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.layout import GrowingLayout, PreallocatedLayout
from dragoman.model.caches.paged import PagePool
from dragoman.model.caches.storage import Float32
from dragoman.model.encoder import Encoder, EncoderConfig
from dragoman.model.heads import ClassificationHead
from dragoman.model.inference import layouts
from dragoman.model.inference.packed import PackedAttention
from dragoman.model.inputs import FrameInput, PatchInput, TokenInput
from dragoman.model.masks.visibility import AttentionMask, Causal, Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.model.positions.rotary import Rotary, RotaryEffect
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import Transformer, TransformerConfig
from dragoman.native import library as native
from dragoman.text.context import SEPARATOR
from dragoman.text.corpus import source_rows
from dragoman.text.lines import Sourced
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer
from dragoman.text.tokens.training import Bytes
from dragoman.train import recipe
from dragoman.train.run import start

BYTES = Tokenizer.train(Bytes(), [])
FEW = ["--sentences", "2", "--beam", "1"]
ROWS = [[*b"abcdefghi"[i:], *b"012345678"[:i], EOS] for i in range(0, 8, 2)]  # of equal length: nothing is padded


@pytest.fixture(scope="module")
def model() -> Transformer:
    """Never trained, and with weights so large that what it says depends on all that it reads."""
    part = BlockConfig(
        mixer=AttentionConfig(heads=2, visibility=Causal()), mlp=FeedForward(hidden=24), norm=LayerNorm()
    )
    seeing_all = AttentionConfig(heads=2, visibility=Full())
    cfg = TransformerConfig(
        vocab=len(BYTES),
        dim=16,
        encoder=TowerConfig(depth=1, pattern=(replace(part, mixer=seeing_all),)),
        decoder=TowerConfig(depth=1, pattern=(replace(part, cross=seeing_all),), final_norm=LayerNorm()),
        position=Learned(length=12),
    )
    torch.manual_seed(0)
    built = cfg.build().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return built


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    plain = {"model": to_dict(model.cfg)}
    run = RunDirectory.create(tmp_path_factory.mktemp("runs") / "x", plain)
    run.write_tokenizers(BYTES, BYTES)
    run.save(1, tensors={"model": model.state_dict()}, progress={}, config=plain, best=True)
    run.close()
    return run.path


def asked(model, names=None, **options) -> dict[tuple[str, str], Check]:
    """The rows of the table whose names contain one of ``names``."""
    verifier = WritingVerifier(model, BYTES, ROWS, beam=3, batch=3, **options)
    chosen = [q for q in verifier.questions() if names is None or any(name in q.name for name in names)]
    verifier.questions = lambda: chosen
    return {(check.name, check.searched): check for check in run_checks(verifier)}


def failed(checks: dict[tuple[str, str], Check]) -> set[str]:
    return {name for (name, _), check in checks.items() if not check.passed}


@pytest.fixture
def by_pytorch(monkeypatch):
    """Without kernels in C, which do in one piece what these tests break in pieces."""
    monkeypatch.setattr(precision, "unavailable", lambda: "switched off")


def test_a_whole_model_passes_and_says_different_things(model):
    checks = asked(model)
    assert failed(checks) == set()
    exact = [check for check in checks.values() if check.exact]
    assert len(exact) > 20 and all(check.of == len(ROWS) for check in exact)
    answers = {h.tokens for h in WritingVerifier(model, BYTES, ROWS).reference("greedy")}
    assert len(answers) > 1


def test_rounding_caches_are_counted_and_not_judged(model):
    checks = asked(model, ["int4", "window:32:4"])
    assert not checks["cache int4", "logits"].exact
    assert checks["cache int4", "logits"].same == 0
    assert checks["cache int4", "logits"].passed
    assert checks["cache int4", "greedy"].difference > 0


def test_what_rounds_is_judged_where_it_is_exact(model):
    with_window = replace(
        model.cfg.decoder.pattern[0], mixer=AttentionConfig(heads=2, visibility=Causal(window=8, sinks=1))
    )
    narrow = replace(model.cfg, decoder=replace(model.cfg.decoder, pattern=(with_window,))).build()
    assert WritingVerifier(narrow, BYTES, ROWS).is_exact("window:32:4")
    assert not WritingVerifier(model, BYTES, ROWS).is_exact("window:32:4")
    assert WritingVerifier(narrow.bfloat16(), BYTES, ROWS).is_exact("bfloat16")


# ---- each row can fail ----------------------------------------------------------------------------


def test_a_batch_whose_sentences_are_mixed_up_is_found(model, by_pytorch, monkeypatch):
    start = Transformer.start

    def mixed(self, source, *arguments):
        state = start(self, source, *arguments)
        state.memory.select_sentences(torch.arange(len(source)).flip(0))
        return state

    monkeypatch.setattr(Transformer, "start", mixed)
    names = {"in batches of 3", "in another order", "with 13 more columns of padding"}
    assert failed(asked(model, names)) == names


def test_batches_that_are_merged_wrongly_are_found_with_few_sentences(model, monkeypatch):
    assert all(check.passed and not check.skipped for check in asked(model, ["merged"]).values())
    join = SearchBatch.join

    def mixed(self, other):
        join(self, other)
        self.choice = self.choice._replace(tokens=self.choice.tokens.flip(0))

    monkeypatch.setattr(SearchBatch, "join", mixed)
    assert failed(asked(model, ["merged"])) == {"merged batches"}


def test_where_no_batches_are_merged_it_says_so(model):
    verifier = WritingVerifier(model, BYTES, ROWS[:1], beam=3)
    checks = chosen_of(verifier, ["merged"])
    assert len(checks) == 2 and all("no batches were merged" in check.skipped for check in checks.values())


def test_a_kernel_that_leaks_padding_is_found(model, by_pytorch, monkeypatch):
    monkeypatch.setattr(tower, "build_cross_mask", lambda visibility, q, k: AttentionMask())
    assert failed(asked(model, ["batches", "padding", "order"])) == {"with 13 more columns of padding"}


def test_a_kernel_that_computes_something_else_is_found(model, by_pytorch, monkeypatch):
    fused = attention.fused
    monkeypatch.setattr(attention, "fused", lambda *arguments: 3 * fused(*arguments))
    assert failed(asked(model, ["explicit", "batches"])) == {"explicit attention"}


def forgetful(extend):
    def forgets(self, new, retained):
        seen = extend(self, new, retained)
        return tuple(torch.cat([torch.zeros_like(part[:2]), part[2:]]) if len(part) > 4 else part for part in seen)

    return forgets


def rotary(model):
    part = replace(model.cfg.decoder.pattern[0], mixer=AttentionConfig(heads=2, visibility=Causal(), position=Rotary()))
    torch.manual_seed(0)
    built = replace(model.cfg, decoder=replace(model.cfg.decoder, pattern=(part,))).build().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return built


def test_positions_that_are_off_by_one_while_decoding_are_found(model, by_pytorch, monkeypatch):
    after = Transformer.positions_after

    def later(self, tokens, state):
        found = after(self, tokens, state)
        return found._replace(pos=found.pos + 1) if state.length else found

    for made in (model, rotary(model)):
        with monkeypatch.context() as patch:
            patch.setattr(Transformer, "positions_after", later)
            assert "without a cache" in failed(asked(made, ["without a cache", "forced prefix"]))


def test_a_rotation_that_is_wrong_in_a_step_alone_is_found(model, by_pytorch, monkeypatch):
    rotate = RotaryEffect.rotate

    def backwards(self, x):
        return rotate(self, x.flip(-1) if self.cos.shape[2] == 1 else x)

    made = rotary(model)
    assert failed(asked(made, ["without a cache"])) == set()
    monkeypatch.setattr(RotaryEffect, "rotate", backwards)
    assert "without a cache" in failed(asked(made, ["without a cache"]))


def test_a_cache_that_loses_the_newest_key_is_found(model, by_pytorch, monkeypatch):
    monkeypatch.setattr(PreallocatedLayout, "extend", losing(PreallocatedLayout.extend))
    assert "cache preallocated" in failed(asked(model, ["cache preallocated", "cache growing+float32"]))


def losing(extend):
    def loses(self, new, retained):
        seen = extend(self, new, retained)
        return tuple(torch.cat([part[:-1], torch.zeros_like(part[-1:])]) for part in seen)

    return loses


@pytest.fixture
def laid_out(monkeypatch):
    """Let a function change the output layer of every model that is laid out for inference."""

    def changed_by(change):
        def prepared(*given):
            model = prepare_for_inference(*given)
            with torch.no_grad():
                change(model.output)
            return model

        prepare_for_inference = writing.prepare_for_inference
        monkeypatch.setattr(writing, "prepare_for_inference", prepared)

    return changed_by


def test_weights_laid_out_wrongly_are_found(model, laid_out, monkeypatch):
    by_pytorch = layouts.TransposedLinear.forward
    monkeypatch.setattr(layouts.TransposedLinear, "forward", lambda self, x: 1.5 * by_pytorch(self, x))
    laid_out(lambda output: output.weight.copy_(output.weight.roll(1, dims=-2)))  # each output has its neighbour's
    assert failed(asked(model, ["run in", "in batches"])) == {"run in float32", "in batches of 3"}


def test_a_model_that_pytorch_runs_passes_too(model, by_pytorch):
    assert failed(asked(model)) == set()


@pytest.fixture
def dropping(monkeypatch):
    """What made attention drop weights at every answer: a layer that is new, and so in training mode."""

    def begin(laid_out):
        for module in laid_out.modules():
            if isinstance(module, PackedAttention):
                object.__setattr__(module, "cfg", replace(module.cfg, dropout=0.3))
                module.training = True
        return laid_out

    for verifier in (writing, reading):
        ready = verifier.prepare_for_inference
        monkeypatch.setattr(verifier, "prepare_for_inference", lambda *given, ready=ready: begin(ready(*given)))


def test_dropout_that_is_alive_is_found_in_a_model_that_writes(model, dropping, monkeypatch):
    if native.available():  # kernels in C know no dropout; another cache is read by PyTorch
        assert {"cache growing", "repeated, cache growing"} <= failed(asked(model))
        assert "repeated" not in failed(asked(model, ["repeated"]))
    monkeypatch.setattr(precision, "unavailable", lambda: "switched off")
    names = {"in batches of 3", "cache growing", "run in float32", "repeated", "n-best lists"}
    assert names <= failed(asked(model))


def test_dropout_that_is_alive_is_found_in_a_model_that_reads(classifier, dropping):
    assert {"in batches of 3", "in another order", "run in float32", "repeated"} <= failed(read(classifier))


def test_the_same_words_with_other_probabilities_are_found(model, laid_out):
    """Twice as sure of everything: no answer of greedy search changes."""

    def surer(output):
        output.weight.mul_(2)
        if output.bias is not None:
            output.bias.mul_(2)

    laid_out(surer)
    first = asked(model, ["in batches"])["in batches of 3", "greedy"].failure
    assert first and first.wanted == first.got and first.difference and first.difference > 0.01


def test_a_cache_that_forgets_is_found(model, by_pytorch, monkeypatch):
    monkeypatch.setattr(PreallocatedLayout, "extend", forgetful(PreallocatedLayout.extend))
    checks = asked(model, ["cache pre", "cache paged:3"])
    assert failed(checks) == {"cache preallocated", "cache preallocated:1"}
    first = checks["cache preallocated", "greedy"].failure
    assert first and first.wanted != first.got and 1 <= first.row <= len(ROWS)


def test_pages_that_are_mixed_up_are_found(model, monkeypatch):
    read = PagePool.read
    monkeypatch.setattr(PagePool, "read", lambda self, slots: read(self, slots.flip(1)))
    assert failed(asked(model, ["cache pre", "cache paged:3", "without"])) == {"cache paged:3"}


def test_a_precision_that_is_not_what_it_says_is_found(model, monkeypatch):
    monkeypatch.setattr(Float32, "read", lambda self, parts, channels, dtype: parts[0] + 0.5)
    assert failed(asked(model, ["cache grow", "cache pre"])) == {"cache growing+float32"}


def test_a_reference_that_forgets_is_found(model, monkeypatch):
    monkeypatch.setattr(GrowingLayout, "extend", forgetful(GrowingLayout.extend))
    assert {"without a cache", "cache growing"} <= failed(asked(model, ["without", "growing"]))


def test_a_beginning_that_is_not_kept_is_found(model, monkeypatch):
    monkeypatch.setattr(ForcedBeginning, "apply", lambda self, logits: logits.roll(1, dims=1))
    assert failed(asked(model, ["forced prefix", "batches"])) == {"forced prefix"}


def test_scores_that_are_not_the_models_are_found(model, monkeypatch):
    read = asking.token_log_probs
    wrong = lambda *arguments: [tuple(p + 0.01 for p in row) for row in read(*arguments)]  # noqa: E731
    monkeypatch.setattr(asking, "token_log_probs", wrong)
    checks = asked(model, ["n-best"])
    assert failed(checks) == {"n-best lists"}
    assert checks["n-best lists", "scores"].failure.difference == pytest.approx(0.01, rel=0.05)


def test_a_compiler_that_changes_the_answer_is_found(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda forward, **_: lambda *arguments: forward(*arguments) + 0.1)
    assert failed(asked(model, ["compiled"], compiled=True)) == {"compiled"}


OTHER_SHAPES = {
    "token lost": lambda logits: logits[:, :-1],
    "first token for all": lambda logits: logits[:, :1],
    "sentence lost": lambda logits: logits[:-1],
    "first sentence for all": lambda logits: logits[:1],
    "vocabulary cut": lambda logits: logits[..., :-1],
}


@pytest.mark.parametrize("change", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_a_compiler_that_changes_the_shape_is_found(model, monkeypatch, change):
    monkeypatch.setattr(torch, "compile", lambda forward, **_: lambda *arguments: change(forward(*arguments)))
    check = asked(model, ["compiled"], compiled=True)["compiled", "logits"]
    assert not check.passed and not check.skipped and (check.same, check.difference) == (0, math.inf)


@pytest.mark.parametrize("differences", [[math.nan, 1.0], [1.0, math.nan]])
def test_the_largest_difference_is_no_number_where_one_is_none(differences):
    check = within("name", "logits", [(), ()], differences, 0.1, exact=True)
    assert math.isnan(check.difference) and check.same == 0


def test_without_a_compiler_it_says_so_and_goes_on(model, monkeypatch):
    def no_compiler(forward, **_):
        raise RuntimeError("no C++ compiler\nis installed")

    monkeypatch.setattr(torch, "compile", no_compiler)
    (check,) = asked(model, ["compiled"], compiled=True).values()
    assert check.passed and check.skipped == "no C++ compiler"


@pytest.mark.slow
def test_a_compiled_model_answers_as_it_does(run):
    """In a process of its own: the compiler would trace the checks of shapes that are in force here."""
    command = [sys.executable, "-m", "dragoman", "verify", str(run), *FEW, "--compiled", "--format", "json"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (row,) = (row for row in map(json.loads, rows) if row["name"] == "compiled")
    assert row["skipped"] or row["same"] == row["of"] > 0


# ---- models that continue texts, models that only read ----------------------------------------------


@pytest.fixture(scope="module")
def language_model(model) -> Transformer:
    part = replace(model.cfg.decoder.pattern[0], cross=None)
    cfg = replace(model.cfg, encoder=None, decoder=replace(model.cfg.decoder, pattern=(part,)))
    torch.manual_seed(4)
    return shaken(replace(cfg, position=Learned(length=20)).build())


INPUTS = {
    "texts": TokenInput(vocab=len(BYTES), position=Learned(length=24)),
    "images": PatchInput(size=(8, 12), patch=2, channels=1),
    "frames": FrameInput(channels=3),
}


@pytest.fixture(scope="module", params=INPUTS)
def classifier(model, request) -> Encoder:
    inputs = INPUTS[request.param]
    torch.manual_seed(4)
    return shaken(
        EncoderConfig(inputs=inputs, dim=16, tower=model.cfg.encoder, head=ClassificationHead(classes=3)).build()
    )


def shaken(built):
    """With weights so large that what it says depends on all that it reads."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return built.eval()


PROMPTS = [[BOS, *b"abcdefghi"[i:]] for i in range(0, 8, 2)]


def continued(model, names=None, **options):
    verifier = WritingVerifier(model, BYTES, PROMPTS, beam=3, batch=3, **options)
    return chosen_of(verifier, names)


def read(model, names=None, **options):
    reader = InputReader(model, BYTES, {})  # which only those of texts need
    return chosen_of(ReadingVerifier(reader, random_inputs(reader, 7), batch=3, **options), names)


def chosen_of(verifier, names):
    chosen = [q for q in verifier.questions() if names is None or any(name in q.name for name in names)]
    verifier.questions = lambda: chosen
    return {(check.name, check.searched): check for check in run_checks(verifier)}


def test_a_language_model_passes_in_every_way_and_says_different_things(language_model):
    checks = continued(language_model)
    assert failed(checks) == set()
    exact = [check for check in checks.values() if check.exact]
    assert len(exact) > 20 and all(check.of == len(PROMPTS) for check in exact)
    assert {"without a cache", "forced prefix", "cache paged:3", "n-best lists"} <= {name for name, _ in checks}
    answers = {h.tokens for h in WritingVerifier(language_model, BYTES, PROMPTS).reference("greedy")}
    assert len(answers) > 1


def test_each_way_to_continue_a_text_can_fail(language_model, by_pytorch, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(attention, "build_self_mask", lambda visibility, q, k, *_: AttentionMask())
        assert "with 13 more columns of padding" in failed(continued(language_model, ["padding"]))
    with monkeypatch.context() as patch:
        patch.setattr(GrowingLayout, "extend", forgetful(GrowingLayout.extend))
        assert "cache growing" in failed(continued(language_model, ["growing"]))
    with monkeypatch.context() as patch:
        patch.setattr(asking, "log_prob_of", lambda logits, ids: log_prob_of(logits, ids) + 0.01)
        assert failed(continued(language_model, ["n-best"])) == {"n-best lists"}


def test_a_model_that_reads_passes_in_every_way(classifier):
    checks = read(classifier)
    assert failed(checks) == set()
    exact = {name for (name, _), check in checks.items() if check.exact}
    padded = {"with 13 more columns of padding"} if reads_a_sequence(classifier) else set()
    assert exact == padded | {
        "in batches of 3",
        "in another order",
        "explicit attention",
        "run in float32",
        "repeated",
    }
    assert all(check.of == 7 for check in checks.values())
    assert 0 < checks["run in bfloat16", "outputs"].difference < 0.1


def reads_a_sequence(classifier: Encoder) -> bool:
    return not isinstance(classifier.cfg.inputs, PatchInput)


def test_each_way_to_read_can_fail(classifier, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(attention, "build_self_mask", lambda *_: AttentionMask())
        names = {"with 13 more columns of padding", "in batches of 3"} if reads_a_sequence(classifier) else set()
        assert failed(read(classifier, ["padding", "batches"])) == names
    with monkeypatch.context() as patch:
        fused = attention.fused
        patch.setattr(attention, "fused", lambda *arguments: 3 * fused(*arguments))
        assert failed(read(classifier, ["explicit"])) == {"explicit attention"}
    with monkeypatch.context() as patch:
        as_it_is = layouts.TransposedLinear.forward
        patch.setattr(layouts.TransposedLinear, "forward", lambda self, x: 1.5 * as_it_is(self, x))
        assert "run in float32" in failed(read(classifier, ["run in"]))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", lambda ask, **_: lambda *arguments: ask(*arguments) + 0.1)
        assert failed(read(classifier, ["compiled"], compiled=True)) == {"compiled"}
    for rows, columns in ((1, None), (None, 1)):
        with monkeypatch.context() as patch:
            cut = (slice(rows), slice(columns))
            patch.setattr(torch, "compile", lambda ask, cut=cut, **_: lambda *arguments: ask(*arguments)[cut])
            (check,) = read(classifier, ["compiled"], compiled=True).values()
            assert not check.passed and check.difference == math.inf


# ---- the command ----------------------------------------------------------------------------------


def test_the_command_passes_and_prints_counts(run, capsys):
    assert main(["verify", str(run), *FEW]) == 0
    out = capsys.readouterr().out
    assert "2 of 2" in out and "differs" not in out
    assert re.search(r"\b(\d+) of \1 hold", out)


def test_the_command_fails_and_shows_the_first_sentence(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(PagePool, "read", lambda self, slots: tuple(0.5 * part[slots] for part in self.parts))
    text = tmp_path / "some.txt"
    text.write_text("hello you\nand you\n\n")
    assert main(["verify", str(run), *FEW, "--text", str(text)]) == 1
    captured = capsys.readouterr()
    assert "cache paged:16, greedy: example 1 ('hello you'): the reference says" in captured.err.replace("\n", " ")
    assert "differs" in captured.out


def test_json_has_an_object_for_each_row(run, capsys):
    assert main(["verify", str(run), *FEW, "--format", "json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row["passed"] for row in rows)
    assert {"name", "searched", "same", "of", "exact", "difference", "failure", "skipped"} <= rows[0].keys()


def test_a_text_without_text_is_a_mistake_of_the_user(run, tmp_path, capsys):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    assert main(["verify", str(run), "--text", str(empty)]) == 2
    assert capsys.readouterr().err == f"dragoman: {empty}: no text in it\n"
    assert main(["verify", str(tmp_path / "nowhere")]) == 2


def test_random_sentences_are_the_same_ones_every_time():
    assert random_rows(300, 20) == random_rows(300, 20)
    assert all(row[-1] == EOS and 2 <= len(row) <= 30 and min(row[:-1]) > EOS for row in random_rows(300, 200))
    assert max(map(len, random_rows(300, 50, longest=8))) == 8


# ---- the examples -----------------------------------------------------------------------------------


def examples_of(run, text=None, count=100):
    """The inputs that the only model of a run is verified on."""
    (one,) = open_run(run, text=text, examples=count, device="cpu")
    return one.verifier.rows


HELD = {"test": ["a b", "c"], "valid": ["d"]}
SETS = {"test": ("test", "valid"), "valid": ("valid",), "an empty test set": ("valid",), "nothing": ()}


@pytest.mark.parametrize("known", SETS)
def test_a_translator_is_verified_on_its_test_set_else_on_its_validation_set(run, tmp_path, known):
    data = shutil.copytree(run, tmp_path / "run") / "data"
    data.mkdir()
    for name in SETS[known]:
        (data / f"{name}.jsonl").write_text("".join(f'{{"source": "{text}", "target": ""}}\n' for text in HELD[name]))
    if known == "an empty test set":
        (data / "test.jsonl").touch()
    rows = examples_of(tmp_path / "run", count=5)
    if SETS[known]:
        assert [BYTES.decode(row[:-1]) for row in rows] == HELD[SETS[known][0]]
    else:
        assert rows == random_rows(len(BYTES), 5, 12)


def test_texts_that_are_too_long_are_counted_and_none_left_is_a_mistake_of_the_user(run, tmp_path, capsys):
    text = tmp_path / "some.txt"
    text.write_text("hello\n" + "a" * 40 + "\n" + "b" * 12 + "\n")
    assert main(["verify", str(run), *FEW, "--sentences", "3", "--text", str(text)]) == 0
    assert "dragoman: left out: 2 of 3 texts, longer than the model's 12 tokens\n" in capsys.readouterr().err
    assert dragoman.verify(run, text=text, sentences=3, beam=1).notes[0].startswith("left out: 2 of 3")
    text.write_text("a" * 40 + "\n")
    assert main(["verify", str(run), "--text", str(text)]) == 2
    assert capsys.readouterr().err == f"dragoman: {text}: 1 text and none fits into the model's 12 tokens\n"


def test_as_many_texts_are_taken_as_asked_for_however_many_lines_are_blank(run, tmp_path):
    text = tmp_path / "some.txt"
    text.write_text("\n" * 5 + "one\n\n\ntwo\nthree\n")
    assert [BYTES.decode(row[:-1]) for row in examples_of(run, text, count=2)] == ["one", "two"]


def test_a_text_keeps_the_sentences_before_it(model, tmp_path):
    marked = Tokenizer.train(Bytes(), [], marks=SEPARATOR[:1])
    sized = replace(model.cfg, vocab=len(marked), position=Learned(length=20)).build()
    plain = {"model": to_dict(sized.cfg), "data": {"context": {"kind": "sentences_before", "sentences": 1}}}
    run = RunDirectory.create(tmp_path / "run", plain)
    run.write_tokenizers(marked, marked)
    run.save(1, tensors={"model": sized.state_dict()}, progress={}, config=plain, best=True)
    run.close()
    (tmp_path / "some.txt").write_text("\n\none\ntwo\n\nthree\n")
    texts = [Sourced("one", "", ""), Sourced("two", "", "", context=("one",)), Sourced("three", "", "")]
    rows = examples_of(tmp_path / "run", tmp_path / "some.txt", count=3)
    assert rows == source_rows(marked, texts, 20)


HELD_OUT = {"classification": "given", "tagging": "text", "question_answering": "text", "contrastive": "first"}
HELD_OUT |= {"images": "given", "frames": "given", "masked": "text", "denoising": "text", "captioning": "image"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Runs that have hardly learned, by their task."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_tasks.write_texts(folder)
    files = tiny_tasks.run_files(folder)

    @cache
    def made(task):
        short = {"budget": {"kind": "steps", "steps": 1}, "validate_every": 1, "save_every": 1}
        list(start(recipe.load(merge(files[task], {"train": short})), folder / task).events())
        return folder / task

    return made


@pytest.mark.parametrize("task", HELD_OUT)
def test_a_run_is_verified_on_what_it_holds_out(prepared, task):
    data = prepared(task) / "data"
    stored = Store.open(data / ("test" if (data / "test").is_dir() else "valid")).columns[HELD_OUT[task]]
    rows = examples_of(prepared(task), count=3)
    assert len(rows) == 3
    for i, row in enumerate(rows):
        if task == "denoising":
            assert set(row) <= set(stored[i].tolist())
        elif task == "captioning":
            shown = ImageMaterial(PatchInput(size=(4, 4), patch=2, channels=1)).collate([stored.raw_row(i)])
            assert torch.equal(row.image, shown[0])
        else:
            assert np.array_equal(row, stored.raw_row(i))


@pytest.mark.parametrize("option", ["--beam", "--max-new-tokens"])
def test_settings_of_a_search_are_refused_for_a_model_that_only_reads(prepared, option, capsys):
    assert main(["verify", str(prepared("classification")), option, "2"]) == 2
    assert capsys.readouterr().err.startswith(f"dragoman: {option}: is for models that generate text")


def test_a_prompt_that_is_too_long_is_cut_and_counted(prepared, tmp_path):
    (tmp_path / "some.txt").write_text("a dog\n" + "a" * 80 + "\n")
    for task in ("language_modelling", "captioning"):
        (one,) = open_run(prepared(task), text=tmp_path / "some.txt", examples=2, device="cpu")
        assert one.note == "cut: 1 of 2 texts, after 16 tokens, so that there is room to continue"
        assert [len(row) for row in one.verifier.rows] == [6, 16]
