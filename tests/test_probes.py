"""Probes: they find a label that can be read, none that cannot, and show what a probe remembers by itself."""

import json
import sys

import numpy as np
import pytest
from test_every_command import make
from tiny_reader import quick_disk  # noqa: F401 (a fixture)

from dragoman import inspect
from dragoman.cli import main
from dragoman.errors import ConfigError
from dragoman.inspect.interventions import Site
from dragoman.inspect.labelled_vectors import collect, words_of
from dragoman.inspect.probes import _Split
from dragoman.text.formats.labelled import LabelledText
from dragoman.text.formats.tagged import TaggedText

KINDS = ("translation", "language_model", "classifier", "tagger", "masked", "embedder", "images", "towers")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {kind: make(kind, folder / kind) for kind in KINDS}


def words(count, draw, letters="abcdefgh"):
    return ["".join(draw.choice(list(letters), size=draw.integers(1, 4))) for _ in range(count)]


def tagged(count=60, *, readable=True):
    """Sentences whose words are tagged by their last letter, or at random."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        mine = words(5, draw)
        labels = (
            ["low" if word[-1] in "abcd" else "high" for word in mine] if readable else draw.choice(["low", "high"], 5)
        )
        found.append(TaggedText(tuple(mine), tuple(map(str, labels))))
    return found


@pytest.fixture(scope="module")
def subject(runs):
    return inspect.Subject.open(runs["masked"])


def test_a_label_that_can_be_read_is_found_and_one_drawn_at_random_is_not(subject):
    readable = inspect.probe(subject, tagged(90), ["encoder.embedding"], seeds=2).places[0]
    assert readable.accuracy > 0.8
    assert readable.selectivity > 0.1
    report = inspect.probe(subject, tagged(readable=False), ["encoder.embedding"], seeds=2)
    assert report.places[0].accuracy < report.majority + 0.1
    assert report.places[0].selectivity < 0.1


def test_the_control_task_gives_a_word_always_the_same_label_as_often_as_labels_occur(subject):
    given = collect(subject, tagged(), ["encoder.embedding"])
    split = _Split(given, 1, 0.2)
    by_word = {}
    for word, label in zip(split.words, split.control, strict=True):
        assert by_word.setdefault(word, label) == label
    assert abs((split.control == "low").mean() - (split.labels == "low").mean()) < 0.15


def test_no_sentence_is_both_fitted_on_and_measured_on(subject):
    given = collect(subject, tagged(), ["encoder.embedding"])
    for seed in range(3):
        split = _Split(given, seed, 0.25)
        assert not set(split.sentence[split.train()]) & set(split.sentence[split.test])
        assert len(set(split.sentence[split.test])) == 15
        assert split.train(0.5).sum() < split.train().sum()
    assert not (_Split(given, 0, 0.25).test == _Split(given, 1, 0.25).test).all()


def test_equal_seeds_give_equal_reports_and_equal_sentences_count_once(subject):
    examples = tagged(30)
    first = inspect.probe(subject, examples, ["encoder.0.residual.after"], seeds=1)
    again = inspect.probe(subject, [*examples, *examples], ["encoder.0.residual.after"], seeds=1)
    assert first == again


def test_the_learning_curve_grows_to_all_training_words(subject):
    report = inspect.probe(subject, tagged(), ["encoder.embedding", "encoder.0.residual.after"], seeds=1)
    sizes = [point.examples for point in report.curve]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 48 * 5
    assert report.curve[-1].accuracy == report.best.accuracy
    assert report.curve[0].accuracy < report.curve[-1].accuracy


@pytest.mark.parametrize("kind", ["translation", "language_model", "masked", "tagger"])
def test_the_tokens_of_a_word_spell_it(kind, runs):
    subject = inspect.Subject.open(runs[kind])
    mine = ["ab", "é", "x.y", "汉字", "😀"]
    arguments, spans = words_of(subject, mine)
    row = (arguments[1] if kind == "translation" else arguments[0])[0].tolist()
    assert [subject.tokenizer.decode([row[i] for i in span]).strip() for span in spans] == mine


def test_a_head_is_a_place_of_its_own(subject):
    site = "encoder.0.mixer.heads"
    whole, first = (collect(subject, tagged(3), [name]).vectors for name in (site, f"{site}:0"))
    np.testing.assert_array_equal(first[Site(site, (0,))], whole[Site(site)][:, :8])


def test_without_scikit_learn_the_extra_is_named(subject, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ConfigError, match="the extra inspect"):
        inspect.probe(subject, tagged(3))


def write_tagged(path, examples):
    path.write_text("\n\n".join("\n".join(map("\t".join, zip(*one, strict=True))) for one in examples) + "\n")


@pytest.mark.parametrize("kind", ["translation", "language_model", "classifier", "tagger", "masked", "embedder"])
def test_probe_reports_every_layer_of_every_model_that_reads_text(kind, runs, tmp_path, capsys):
    write_tagged(tmp_path / "tagged.tsv", tagged(20))
    given = ["probe", str(runs[kind]), "--labels", str(tmp_path / "tagged.tsv"), "--seeds", "1"]
    assert main([*given, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    side = "decoder" if kind == "language_model" else "encoder"
    assert [row["place"] for row in found["places"]] == [f"{side}.embedding", f"{side}.0.residual.after"]
    assert found["kind"] == "words"
    assert found["examples"] == 100
    assert main(given) == 0
    assert "selectivity" in capsys.readouterr().out


def test_labels_of_sentences_are_told_from_tags_by_the_form_of_the_file(runs, tmp_path, capsys):
    draw = np.random.default_rng(0)
    rows = [" ".join(words(3, draw)) for _ in range(30)]
    examples = [LabelledText(row, "low" if row[0] in "abcd" else "high") for row in rows]
    files = {
        "a.tsv": "".join(f"{one.text}\t{one.label}\n" for one in examples),
        "a.txt": "".join(f"{one.label} {one.text}\n" for one in examples),
        "a.jsonl": "".join(json.dumps({"text": one.text, "label": one.label}) + "\n" for one in examples),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        given = ["probe", str(runs["classifier"]), "--labels", str(tmp_path / name), "--seeds", "1", "--format", "json"]
        assert main(given) == 0
        assert json.loads(capsys.readouterr().out)["kind"] == "sentences"


BAD = {
    "missing": ("no.tsv", None, [], "no.tsv"),
    "one word without a tag": ("a.tsv", "ab\tx\ncd\n", [], "a.tsv:2"),
    "labels that do not fit": ("a.jsonl", '{"tokens": ["a", "b"], "labels": ["x"]}\n', [], "2 words and 1 labels"),
    "few": ("a.tsv", "ab\tx\ncd\ty\n", [], "1 different sentences are too few"),
    "one label": ("a.tsv", "\n\n".join(f"a{i}\tx" for i in range(30)) + "\n", [], "a probe needs two or more"),
    "place": ("a.tsv", "ab\tx\n", ["--places", "encoder.0.residual.aftr"], "Did you mean encoder.0.residual.after"),
    "layer": ("a.tsv", "ab\tx\n", ["--places", "encoder.5.residual.after"], "layers 0 to 0"),
    "other side": ("a.tsv", "ab\tx\n", ["--places", "decoder.0.residual.after"], "name a place of the encoder"),
    "weights": ("a.tsv", "ab\tx\n", ["--places", "encoder.0.mixer.weights"], "no vector for each word"),
    "head": ("a.tsv", "ab\tx\n", ["--places", "encoder.0.mixer.heads:7"], "the place has 2 heads"),
    "strength": ("a.tsv", "ab\tx\n", ["--strength", "0"], "must be above 0"),
    "unit": ("a.pdf", "", [], "a.pdf"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_of_probe_is_told_in_one_line(case, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name, content, options, told = BAD[case]
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["probe", str(runs["translation"]), "--labels", name, *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dragoman: ") and err.count("\n") == 1
    assert told in err


@pytest.mark.parametrize("kind", ["images", "towers"])
def test_a_model_that_reads_no_single_text_is_refused(kind, runs, tmp_path, capsys):
    write_tagged(tmp_path / "tagged.tsv", tagged(20))
    assert main(["probe", str(runs[kind]), "--labels", str(tmp_path / "tagged.tsv")]) == 2
    assert "this model reads something else" in capsys.readouterr().err
