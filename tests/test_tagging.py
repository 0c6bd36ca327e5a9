"""Taggers: from columns or JSON lines to a label for each word, with the word's commonest label beside."""

import json
from itertools import chain

import numpy as np
import pytest
import torch
from tiny_reader import config, quick_disk, trained  # noqa: F401 (a fixture)
from tiny_run import outcome

from dragoman.cli import main
from dragoman.data.tags import IGNORE, TaggedExamples, mark_spans, parts, spans
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.readers.tagger import Tagger
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.evaluate.metrics import score
from dragoman.evaluate.tagging import MostFrequentLabel, SpanF1, WordAccuracy, WordMacroF1, evaluate
from dragoman.text.formats.tagged import TaggedColumns, TaggedLines, TaggedText, guess_tagged, read_tagged
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer
from dragoman.text.tokens.training import Bytes
from dragoman.train.events import Finished, Saved
from dragoman.train.run import resume, start

FILLERS = ["the", "a", "saw", "went", "with", "and", "near"]
NAMES = {"PER": ["al", "bo", "cy"], "LOC": ["ur", "oz", "ix"]}


def sentences(count=160, seed=1):
    """Names of people and of places, of one word or two; "near" makes a person's name one of a place."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        tokens, labels = [], []
        for _ in range(int(draw.integers(1, 4))):
            filler = str(draw.choice(FILLERS))
            kind = "LOC" if filler == "near" else str(draw.choice(["PER", "LOC"]))
            words = draw.choice(NAMES["PER" if filler == "near" else kind], int(draw.integers(1, 3)))
            tokens += [filler, *map(str, words)]
            labels += ["O", f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)]
        yield TaggedText((*tokens, f"n{number}"), (*labels, "O"))


def write_columns(path, examples):
    path.write_text("".join("".join(f"{t}\t{l}\n" for t, l in zip(*e, strict=True)) + "\n" for e in examples))
    return path


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    return write_columns(tmp_path_factory.mktemp("text") / "names.conll", sentences())


def run_config(path, steps=12, data=None, **train):
    held = {"test": 20, "valid": 20, "near": None}
    data = {"kind": "tagged_texts", "train": [{"kind": "tagged_columns", "path": str(path)}], "hold_out": held} | (
        data or {}
    )
    return config("tagging", data, {"dim": 32, "head": "tagging"}, steps, vocab=290, **train)


@pytest.fixture(scope="module")
def run(columns, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    _, seen = trained(run_config(columns, steps=160), path)
    assert seen.scores["span F1"] > 80
    return path


# ---- learning -------------------------------------------------------------------------------------


def test_what_only_the_neighbour_tells_is_learned_and_no_baseline_knows_it(run):
    tagger = Tagger.load(run)
    found = evaluate(tagger, list(sentences(60, seed=9)), train=list(sentences()))
    assert found.scores["span_f1"].value > found.baseline["span_f1"].value + 5
    assert tagger.tag([["near", "al"], ["saw", "al"]])[0].labels[1] == "B-LOC"
    assert tagger.tag([["saw", "al"]])[0].labels[1] == "B-PER"


def test_validation_counts_spans_of_whole_sentences_as_evaluation_does(columns, tmp_path):
    _, seen = trained(run_config(columns, steps=60, data={"longest": 6}), tmp_path / "run")
    valid = read_tagged(TaggedLines(path=str(tmp_path / "run/data/valid.jsonl")))
    tagger = Tagger.load(tmp_path / "run", "last", precision="float32")
    labels = Store.open(tmp_path / "run/data/valid").columns["label"]
    in_parts = sum(len(spans([tagger.labels[i - 1] for i in labels[row] if i])) for row in range(len(labels)))
    assert in_parts > sum(len(spans(sentence.labels)) for sentence in valid)  # some span stands in two parts
    found = evaluate(tagger, valid)
    assert seen.scores["span F1"] == pytest.approx(found.scores["span_f1"].value)
    assert seen.scores["accuracy"] == pytest.approx(found.scores["accuracy"].value)
    assert [sample.source for sample in seen.samples] == [" ".join(sentence.tokens) for sentence in valid[:2]]


def test_a_tagger_is_trained_without_a_validation_set(columns, tmp_path):
    held = {"hold_out": {"test": 20, "valid": 0, "near": None}}
    assert isinstance(list(start(run_config(columns, steps=2, data=held), tmp_path / "run").events())[-1], Finished)


def test_a_run_that_was_stopped_comes_to_the_same_end_to_the_bit(columns, tmp_path):
    cfg = run_config(columns, validate_every=4)
    list(start(cfg, tmp_path / "whole").events())
    stopped = start(cfg, tmp_path / "stopped").events()
    assert any(isinstance(event, Saved) and event.step == 6 for event in stopped)
    stopped.close()
    list(resume(tmp_path / "stopped", cfg=cfg).events())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_sentences_are_tagged_alike_alone_and_among_others_and_every_word_has_a_label(run):
    tagger = Tagger.load(run)
    given = [list(e.tokens) for e in sentences(8, seed=3)] + [["Ünknown!"], [], ["\x07"]]
    for words, together in zip(given, tagger.tag(given), strict=True):
        alone = tagger.tag([words])[0]
        assert len(together.labels) == len(words) and alone.labels == together.labels
        assert alone.probabilities == pytest.approx(together.probabilities, abs=1e-5)


def test_a_tagger_whose_output_is_not_numbers_gives_no_labels(run):
    tagger = Tagger.load(run, precision="float32")
    with torch.no_grad():
        next(tagger.model.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="the model answers with NaN or infinity"):
        tagger.tag([["Anna", "sees", "Ben"], ["she"]])


def test_a_tagger_is_no_classifier_and_says_so(run):
    with pytest.raises(CheckpointError, match="tells the label of each word: use `dragoman tag`"):
        Classifier.load(run)


# ---- words and pieces -----------------------------------------------------------------------------


def test_a_label_stands_at_the_first_piece_of_its_word_and_nowhere_else(tmp_path):
    tokenizer = Tokenizer.train(Bytes(), [])
    form = TaggedExamples(tokenizer, ["a", "b"], longest=50)
    form.store(tmp_path / "store", [TaggedText(("xy", "z"), ("b", "a"))])
    batch = form.batch(Store.open(tmp_path / "store"), np.array([0]))
    x, y, z = (tokenizer.encode(letter)[0] for letter in "xyz")
    assert batch.ids.tolist() == [[BOS, x, y, z, EOS]]
    assert batch.labels.tolist() == [[IGNORE, 1, IGNORE, 0, IGNORE]]


@pytest.mark.parametrize("longest", [5, 8, 13, 100])
def test_a_long_sentence_is_cut_between_words_and_loses_none(longest):
    tokenizer = Tokenizer.train(Bytes(), [])
    words = ["one", "two", "three", "longerthanall", "x", "four"]
    cut = list(parts(tokenizer, words, longest))
    assert sum(len(part.first) for part in cut) == len(words)
    assert all(len(part.ids) <= longest and part.ids[0] == BOS and part.ids[-1] == EOS for part in cut)
    read = [tokenizer.decode([part.ids[i]]) for part in cut for i in part.first]
    assert read == [word[0] for word in words]


def test_the_baseline_reads_the_training_words_again_from_the_store(run, columns):
    from dragoman.evaluate.tagging import TaggingEvaluator

    given = {example.text: example for example in read_tagged(TaggedColumns(path=str(columns)))}
    found = list(TaggingEvaluator(run).trained_on())
    assert len(found) > 100 and all(given[example.text] == example for example in found)


# ---- figures --------------------------------------------------------------------------------------


def random_labels(count, seed):
    draw = np.random.default_rng(seed)
    kinds = ["O", "B-a", "I-a", "B-b", "I-b", "B-b-c", "I-b-c"]
    return [list(map(str, draw.choice(kinds, int(draw.integers(1, 9))))) for _ in range(count)]


def test_spans_and_their_f1_are_those_of_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics")
    labelling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    true = random_labels(300, 1)
    guessed = [[str(np.random.default_rng(i).choice([t, "O", "B-a"])) for t in row] for i, row in enumerate(true)]
    for row in true + guessed:
        assert spans(row) == {(kind, begin, end + 1) for kind, begin, end in labelling.get_entities(row)}
    assert score(SpanF1(), guessed, true).value == pytest.approx(100 * seqeval.f1_score(true, guessed))
    assert score(WordAccuracy(), guessed, true).value == pytest.approx(100 * seqeval.accuracy_score(true, guessed))


def test_macro_f1_of_words_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    true, guessed = random_labels(50, 1), random_labels(50, 1)
    draw = np.random.default_rng(2)
    guessed = [[str(draw.choice([label, "O"])) for label in row] for row in guessed]
    expected = metrics.f1_score(list(chain(*true)), list(chain(*guessed)), average="macro", zero_division=0)
    assert score(WordMacroF1(), guessed, true).value == pytest.approx(100 * expected)


def test_labels_mark_spans_where_all_of_them_say_so():
    assert mark_spans(["O", "B-x", "I-x"]) and not mark_spans(["O"]) and not mark_spans(["O", "B-x", "NOUN"])


def test_the_baseline_gives_each_word_its_commonest_label_and_others_the_commonest_of_all():
    train = [TaggedText(("a", "a", "a", "b"), ("x", "y", "y", "x")), TaggedText(("c", "d"), ("x", "x"))]
    assert MostFrequentLabel(train).guess(["a", "b", "new"]) == ("y", "x", "x")


# ---- files ----------------------------------------------------------------------------------------


def test_tagged_files_of_every_kind_say_the_same(tmp_path):
    files = {
        "a.conll": "-DOCSTART- -X- O\n\nAnna NNP B-PER\nsings VBZ O\n\n\nLima NNP B-LOC\n",
        "b.tsv": "# a comment\nAnna\tB-PER\nsings\tO\n\nLima\tB-LOC",
        "c.jsonl": '{"tokens": ["Anna", "sings"], "labels": ["B-PER", "O"]}\n\n'
        '{"tokens": ["Lima"], "labels": ["B-LOC"]}',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        found = read_tagged(guess_tagged(str(tmp_path / name)))
        assert found == [TaggedText(("Anna", "sings"), ("B-PER", "O")), TaggedText(("Lima",), ("B-LOC",))], name


@pytest.mark.parametrize("gap", [" ", "\t"])
@pytest.mark.parametrize("first", ["#a", "a"])
def test_words_may_begin_with_a_number_sign_and_comments_are_those_of_files_with_tabs(tmp_path, gap, first):
    rows = [f"{first}{gap}O", f"#b{gap}B-TAG", f"#{gap}SYM", "", f"#c{gap}O"]
    comments = ["# sent_id = 1", "#", "-DOCSTART-"] if gap == "\t" else ["-DOCSTART- O"]
    (tmp_path / "a.conll").write_text("\n".join([*comments, *rows, "", *comments, f"d{gap}O", ""]))
    found = [placed.example.tokens for placed in TaggedColumns(path=str(tmp_path / "a.conll")).read()]
    assert found == [(first, "#b", "#"), ("#c",), ("d",)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.conll", "one O\ntwo\n", r"a\.conll:2: 2 columns expected, a word and its label among them; found 'two'"),
        ("a.conll", "one\tO\n\tO\n", r"a\.conll:2: an empty word"),
        ("a.conll", "\n\n", r"a\.conll: holds no sentence with labels"),
        ("a.jsonl", '{"tokens": ["a"], "labels": ["x", "y"]}\n', r"a\.jsonl:1: 1 words and 2 labels: each word needs"),
        ("a.jsonl", '{"tokens": "a", "labels": ["x"]}\n', r"a\.jsonl:1: expected an object with 'tokens'"),
        ("a.jsonl", '{"tokens": ["a", " "], "labels": ["x", "x"]}\n', r"a\.jsonl:1: an empty word or label"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    kind = TaggedLines if name.endswith("jsonl") else TaggedColumns
    with pytest.raises(DataError, match=says):
        read_tagged(kind(path=str(tmp_path / name)))


def test_a_label_that_training_never_saw_is_refused_with_its_line(run, columns, tmp_path, capsys):
    (tmp_path / "test.conll").write_text("saw\tO\noz\tB-CITY\n")
    says = r"test\.conll:2: a word has the label 'B-CITY', which training never saw: it knows B-LOC, B-PER, I-LOC"
    data = {"test": {"kind": "tagged_columns", "path": str(tmp_path / "test.conll")}}
    with pytest.raises(DataError, match=says):
        list(start(run_config(columns, data=data), tmp_path / "run").events())
    assert main(["evaluate", str(run), str(tmp_path / "test.conll")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "test.conll:2" in err


def test_a_head_of_another_kind_is_named_before_anything_is_written(columns, tmp_path):
    cfg = run_config(columns)
    with pytest.raises(ConfigError, match=r"model\.head: tagging takes a head of the kind tagging"):
        start(config("tagging", {"kind": "tagged_texts", "train": []}, {"head": "spans"}), tmp_path / "run")
    assert cfg.task.kind == "tagging" and not (tmp_path / "run").exists()


# ---- the command line -----------------------------------------------------------------------------


def test_tag_prints_a_word_and_its_label_in_each_line(run, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("saw al\n\nnear ur\n")
    assert main(["tag", str(run), str(tmp_path / "in.txt")]) == 0
    assert capsys.readouterr().out == "saw\tO\nal\tB-PER\n\n\nnear\tO\nur\tB-LOC\n\n"
    assert main(["tag", str(run), "saw oz", "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (
        record["tokens"] == ["saw", "oz"] and record["labels"] == ["O", "B-LOC"] and len(record["probabilities"]) == 2
    )


def test_what_tag_writes_can_be_evaluated_on(run, tmp_path, capsys):
    assert main(["tag", str(run), "saw al", "-o", str(tmp_path / "own.conll")]) == 0
    assert main(["evaluate", str(run), str(tmp_path / "own.conll")]) == 0
    out = capsys.readouterr().out
    assert "span F1" in out and "most frequent label of the word" in out
    kept = json.loads((run / "evaluations" / "own" / "scores.json").read_text())
    assert kept["scores"]["accuracy"]["value"] == 100
