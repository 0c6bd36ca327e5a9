"""Classifiers: from labelled files to labels, with what a bag of words does beside; mistakes are told in one line."""

import json
import os
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_run import outcome

from dragoman.checkpoint import load_model, load_reader
from dragoman.cli import main
from dragoman.compare.figure import StudySubject
from dragoman.compare.measures import MEASURES
from dragoman.config import merge
from dragoman.data.labels import LabelledBatch, accuracy, confusion, macro_f1, true_labels
from dragoman.data.tasks import ClassificationTask
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.readers.embedder import Embedder
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.evaluate.baseline import BagOfWords
from dragoman.evaluate.classification import MacroF1, evaluate
from dragoman.evaluate.metrics import score
from dragoman.text.formats.labelled import (
    LabelFirst,
    LabelledLines,
    LabelledTable,
    LabelledText,
    guess_labelled,
    read_labelled,
)
from dragoman.text.splits import sort_labels
from dragoman.train import recipe
from dragoman.train.events import Saved, Started, Validated
from dragoman.train.run import resume, start

BLOCK = {
    "mixer": {"heads": 2, "position": "rotary", "visibility": "full"},
    "mlp": {"kind": "feed_forward", "hidden": 32},
    "norm": "layer_norm",
}
MODEL = {
    "kind": "encoder",
    "dim": 16,
    "inputs": "token_input",
    "tower": {"depth": 1, "pattern": [BLOCK]},
    "head": {"kind": "classification", "pooling": "mean", "dropout": 0.1},
}
FILLERS = ["the", "a", "very", "so", "film", "play", "song", "it", "was"]
WORDS = {"good": ["fine", "lovely", "great"], "bad": ["dull", "awful", "poor"], "odd": ["strange", "weird", "curious"]}


def write_table(path, count=240, seed=1, header=True):
    draw = np.random.default_rng(seed)
    lines = ["text\tlabel"] if header else []
    for _ in range(count):
        label = str(draw.choice(list(WORDS)))
        words = [*draw.choice(FILLERS, int(draw.integers(1, 6))), str(draw.choice(WORDS[label]))]
        draw.shuffle(words)
        lines.append(f"{' '.join(words)} {draw.integers(10**6)}\t{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def config(path, data=None, model=None, **train):
    return recipe.load(
        {
            "task": "classification",
            "data": {
                "kind": "labelled_texts",
                "train": [{"kind": "labelled_table", "path": str(path)}],
                "hold_out": {"test": 20, "valid": 30, "near": None},
            }
            | (data or {}),
            "tokenizer": {"kind": "bpe", "vocab": 300},
            "model": model or MODEL,
            "train": {
                "budget": {"kind": "steps", "steps": 12},
                "schedule": {"kind": "constant", "peak": 1e-2, "warmup": 2},
                "batch_tokens": 400,
                "validate_every": 4,
                "save_every": 3,
                "report_every": 2,
                "keep": {"last": 100},
                "samples": 2,
                "precision": "float32",
            }
            | train,
        }
    )


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # these tests stop runs, not machines
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("text") / "table.tsv")


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    cfg = config(table, budget={"kind": "steps", "steps": 60}, validate_every=20, save_every=60)
    events = list(start(cfg, path).events())
    return path, events


# ---- training -------------------------------------------------------------------------------------


def test_words_that_tell_the_label_are_learned(run):
    _, events = run
    last = [event for event in events if isinstance(event, Validated)][-1]
    assert last.scores["accuracy"] > 95 and last.scores["macro F1"] > 95
    assert {sample.reference for sample in last.samples} <= set(WORDS)
    assert "3 labels" in next(event for event in events if isinstance(event, Started)).summary


def test_the_labels_and_sizes_are_written_into_the_configuration(run):
    _, _, config = load_reader(run[0])
    assert config["task"]["labels"] == ["bad", "good", "odd"] and config["model"]["head"]["classes"] == 3


def test_a_run_that_was_stopped_comes_to_the_same_end_to_the_bit(table, tmp_path):
    cfg = config(table)
    list(start(cfg, tmp_path / "whole").events())
    stopped = start(cfg, tmp_path / "stopped").events()
    assert any(isinstance(event, Saved) and event.step == 6 for event in stopped)
    stopped.close()
    list(resume(tmp_path / "stopped", cfg=cfg).events())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_texts_are_read_alike_alone_and_among_others(run):
    classifier = Classifier.load(run[0])
    texts = ["the film was great", "dull", "so very strange a song it was", ""]
    for text, together in zip(texts, classifier.classify(texts), strict=True):
        alone = classifier.classify([text])[0]
        assert alone.label == together.label and sum(together.probabilities.values()) == pytest.approx(1)
        assert alone.probability == pytest.approx(together.probability, abs=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("reader", "ask"), [(Classifier, "classify"), (Embedder, "embed")])
def test_a_model_whose_output_is_not_numbers_gives_no_answer(run, reader, ask, bad):
    loaded = reader.load(run[0], precision="float32")
    damaged = next(parameter for parameter in loaded.model.parameters() if parameter.dim() > 1)
    with torch.no_grad():
        damaged.fill_(bad)
    with pytest.raises(CheckpointError, match="the model answers with NaN or infinity"):
        getattr(loaded, ask)(["the film was great", "dull"])


def test_a_classifier_is_no_translator_and_says_so(run):
    with pytest.raises(CheckpointError, match="tells the label of a whole input: use `dragoman classify`"):
        load_model(run[0])


# ---- figures --------------------------------------------------------------------------------------


def test_figures_agree_with_their_definitions():
    true, guessed = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 0, 2])
    matrix = confusion(true, guessed, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert accuracy(matrix) == 4 / 6
    precision, recall = np.array([1 / 2, 2 / 3, 1]), np.array([1 / 2, 1, 1 / 2])
    expected = np.mean(2 * precision * recall / (precision + recall))
    assert macro_f1(matrix) == pytest.approx(expected)
    sides = [[f"l{i}" for i in side] for side in (guessed, true)]
    assert score(MacroF1(), *sides).value == pytest.approx(100 * expected)


def test_r_drop_is_two_passes_and_what_they_disagree_on(run):
    model, _, _ = load_reader(run[0])
    batch = LabelledBatch(torch.randint(3, 300, (6, 5)), torch.arange(6) % 3)
    task, once = ClassificationTask(r_drop=0.5), ClassificationTask().loss(model, batch)
    torch.testing.assert_close(task.loss(model, batch), once)  # without dropout they agree
    model.train()
    torch.manual_seed(3)
    summed, count = task.loss(model, batch)
    torch.manual_seed(3)
    one, two = model(batch.inputs.repeat(2, 1)).double().log_softmax(-1).chunk(2)
    plain = sum(-x.gather(1, batch.labels[:, None]).sum() for x in (one, two)) / 2
    apart = ((one.exp() - two.exp()) * (one - two)).sum()
    torch.testing.assert_close(summed.double(), plain + 0.5 / 4 * apart, rtol=1e-5, atol=1e-5)
    assert count == 6 and apart > 0


def test_the_baseline_learns_words_but_no_order_beyond_neighbours(table):
    examples = read_labelled(LabelledTable(path=str(table)))
    baseline = BagOfWords([e.text for e in examples[:180]], [e.label for e in examples[:180]], sorted(WORDS))
    right = sum(
        g == e.label for g, e in zip(baseline.guess([e.text for e in examples[180:]]), examples[180:], strict=True)
    )
    assert right > 0.95 * 60
    far = [f"{a} x x x {b}" for a, b in [("p", "q"), ("q", "p")] * 20]
    guesses = BagOfWords(far, ["1", "0"] * 20, ["0", "1"]).guess(["p y y y q", "q y y y p"])
    assert guesses[0] == guesses[1]


def test_an_evaluation_is_kept_with_its_confusion_and_baseline(run, tmp_path):
    classifier = Classifier.load(run[0])
    examples = read_labelled(LabelledLines(path=str(run[0] / "data" / "test.jsonl")), classifier.labels)
    evaluation = evaluate(classifier, examples, train=examples, folder=tmp_path / "e")
    kept = json.loads((tmp_path / "e" / "scores.json").read_text())
    assert np.sum(kept["confusion"]) == kept["sentences"] == 20
    assert kept["scores"]["accuracy"]["value"] == evaluation.scores["accuracy"].value > 90
    assert kept["baseline"]["accuracy"]["value"] > 90


def test_in_studies_a_classifiers_scores_have_the_intervals_that_evaluating_gives(run, table):
    subject = StudySubject("A", 1, run[0], "best", config(table), run[0], "toy")
    classifier = Classifier.load(run[0])
    examples = read_labelled(LabelledLines(path=str(run[0] / "data" / "test.jsonl")), classifier.labels)
    expected = {one.name: one for one in evaluate(classifier, examples).scores.values()}
    found = MEASURES["task"](subject)
    for name, one in expected.items():
        assert found[name].value == one.value
        assert tuple(np.percentile(found[name].resampled, [2.5, 97.5])) == pytest.approx(one.interval)
    wrong = MEASURES["mistakes"](subject)["mistakes"]
    assert wrong.value == pytest.approx(100 - expected["accuracy"].value) and not wrong.higher_is_better
    assert wrong.resampled == pytest.approx([100 - one for one in found["accuracy"].resampled])


# ---- files ----------------------------------------------------------------------------------------


def test_labelled_files_of_every_kind_say_the_same(tmp_path):
    files = {
        "a.tsv": 'text\tlabel\na "b"\t1\nc\t0\n',
        "a.csv": 'label,text\n1,"a ""b"""\n0,c\n',
        "a.jsonl": '{"text": "a \\"b\\"", "label": 1}\n{"text": "c", "label": "0"}\n',
        "a.txt": '1 a "b"\n0\tc\n',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        found = read_labelled(guess_labelled(str(tmp_path / name)))
        assert found == [LabelledText('a "b"', "1"), LabelledText("c", "0")], name


class OnlyRows:
    """Column whose rows can be asked for, but not all of them."""

    def __init__(self, ids):
        self.ids = np.array(ids)

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray)
        return self.ids[rows]


def test_a_batch_reads_the_labels_of_its_rows_alone():
    store = SimpleNamespace(columns={"label": SimpleNamespace(ids=OnlyRows([0, 2, 1, 2]))})
    assert true_labels(store, np.array([3, 2, 0])).tolist() == [2, 1, 0]  # pyright: ignore[reportArgumentType]


def test_labels_that_are_numbers_stand_in_their_order():
    assert sort_labels({"10", "9", "b", "a"}) == ["9", "10", "a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.tsv", "text\tkind\na\tb\n", r"a\.tsv:1: no column 'label' in the header: text, kind"),
        ("a.tsv", "text\tlabel\na\t\n", r"a\.tsv: example 1 has no label: 'a'"),
        ("a.jsonl", '{"text": "a"}\n', r"a\.jsonl:1: expected an object with 'text': .* 'label'"),
        ("a.jsonl", '{"text": "a", "label": null}\n', r"a\.jsonl:1: expected an object"),
        ("a.txt", "5\n", r"a\.txt:1: a label and a text expected, only '5' found"),
        ("a.tsv", "text\tlabel\n \tx\n", r"a\.tsv: holds no labelled text"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    kind = {".tsv": LabelledTable, ".jsonl": LabelledLines, ".txt": LabelFirst}[os.path.splitext(name)[1]]
    with pytest.raises(DataError, match=says):
        read_labelled(kind(path=str(tmp_path / name)))


def test_a_label_that_training_never_saw_is_refused_with_its_place(table, tmp_path, capsys):
    (tmp_path / "test.tsv").write_text("text\tlabel\nfine\tgood\nwho knows\tunsure\n")
    data = {"test": {"kind": "labelled_table", "path": str(tmp_path / "test.tsv")}}
    says = r"test\.tsv: example 2 has the label 'unsure', which training never saw: it knows bad, good, odd"
    with pytest.raises(DataError, match=says):
        list(start(config(table, data), tmp_path / "run").events())
    assert not (tmp_path / "run").exists()


def test_training_texts_like_one_of_a_given_test_set_are_dropped(table, tmp_path):
    given = table.read_text().splitlines()[:6]
    (tmp_path / "test.tsv").write_text("\n".join(given) + "\n")
    data = {"test": {"kind": "labelled_table", "path": str(tmp_path / "test.tsv")}}
    found = config(table, data).data.split()
    assert ("removed: same as one held apart", 5) in found.table
    assert not {e.text for e in found.split.test} & {e.text for e in found.split.train}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": MODEL | {"head": "masked_language"}}, "model.head: classification takes a head of the kind"),
        ({"model": {"dim": 8, "decoder": {"depth": 1, "pattern": [BLOCK]}}}, "model: classification takes encoder"),
        (
            {"data": {"kind": "texts", "files": ["a"]}},
            "data: classification takes labelled_texts or labelled_arrays, not texts",
        ),
    ],
    ids=["head", "model", "data"],
)
def test_what_does_not_fit_is_named_before_anything_is_written(table, tmp_path, change, says):
    plain = recipe.to_dict(config(table)) | change
    with pytest.raises(ConfigError, match=says):
        start(recipe.load(plain), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- the command line -----------------------------------------------------------------------------


def test_classify_prints_a_label_and_its_probability_for_each_line(run, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("the film was great\nso dull\n")
    assert main(["classify", str(run[0]), str(tmp_path / "texts.txt")]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [label for label, _ in lines] == ["good", "bad"] and all(0 < float(p) <= 1 for _, p in lines)
    assert main(["classify", str(run[0]), "so weird", "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["label"] == "odd" and set(record["probabilities"]) == set(WORDS)


def test_evaluate_prints_figures_baseline_and_confusion_and_the_report_keeps_them(run, capsys):
    assert main(["evaluate", str(run[0])]) == 0
    out = capsys.readouterr().out
    assert "accuracy" in out and "macro F1" in out and "bag of words" in out and "taken for" in out
    page = (run[0] / "report.html").read_text()
    assert "bag of words" in page and "taken for" in page


def test_evaluating_on_labels_that_training_never_saw_is_one_line_and_exit_code_2(run, tmp_path, capsys):
    (tmp_path / "test.tsv").write_text("text\tlabel\nwho knows\tunsure\n")
    assert main(["evaluate", str(run[0]), str(tmp_path / "test.tsv")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "example 1 has the label 'unsure'" in err


def test_embed_writes_a_vector_of_length_1_for_each_line(run, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("the film was great\nso dull\nso dull\n")
    assert main(["embed", str(run[0]), str(tmp_path / "texts.txt"), "-o", str(tmp_path / "v.npy")]) == 0
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (3, 16) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert main(["embed", str(run[0]), "so dull"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["text"] == "so dull" and np.allclose(record["vector"], vectors[1], atol=1e-5)
    assert np.allclose(vectors[1], vectors[2], atol=1e-6) and not np.allclose(vectors[0], vectors[1], atol=1e-2)


def test_another_classifier_may_begin_with_this_one_for_labels_of_its_own(table, run, tmp_path):
    lines = [line for line in table.read_text().splitlines() if not line.endswith("odd")]
    (tmp_path / "two.tsv").write_text("\n".join(lines) + "\n")
    plain = recipe.to_dict(config(tmp_path / "two.tsv"))
    init = {"run": str(run[0]), "new": ["head.output.*"]}
    change = {"task": {"labels": None}, "model": {"head": {"classes": None}}, "start_from": init}
    list(start(recipe.load({"data": plain["data"], "train": plain["train"]} | change), tmp_path / "run").events())
    model, _, now = load_reader(tmp_path / "run")
    assert now["task"]["labels"] == ["bad", "good"] and model.head.output.out_features == 2


@pytest.mark.parametrize("inherited", [True, False], ids=["from the earlier run", "from the file"])
def test_labels_that_are_not_those_of_the_data_leave_no_run_and_say_what_to_set(table, run, tmp_path, inherited):
    lines = [line for line in table.read_text().splitlines() if not line.endswith("odd")]
    (tmp_path / "two.tsv").write_text("\n".join(lines) + "\n")
    plain = recipe.to_dict(config(tmp_path / "two.tsv"))
    if inherited:
        plain = {"data": plain["data"], "train": plain["train"], "start_from": {"run": str(run[0])}}
        says = r"^task\.labels: .* in .*, but the data have .*: for other labels set (?P<settings>.*)$"
    else:
        plain = merge(plain, {"task": {"labels": ["x", "y"]}})
        says = r"^task\.labels: .* given, but the data have .*: leave it out"
    with pytest.raises(ConfigError, match=says) as refused:
        list(start(recipe.load(plain), tmp_path / "run").events())
    assert not (tmp_path / "run").exists()
    if inherited:
        settings = shlex.split(re.search(says, str(refused.value))["settings"])
        list(start(recipe.load(plain, settings), tmp_path / "run").events())
        assert load_reader(tmp_path / "run")[2]["task"]["labels"] == ["bad", "good"]
