"""Failures traced to data: near training pairs, words that training lacked, proposals, and a hard set that grows."""

import json
from collections import Counter

import numpy as np
import pytest
import tiny_run
from test_every_command import make
from tiny_reader import quick_disk  # noqa: F401 (a fixture)

from dragoman import inspect
from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.errors import DataError
from dragoman.inspect import neighbours
from dragoman.inspect.failures import proposals, words_of_text
from dragoman.inspect.neighbours import encoded, nearest_by_encoder, nearest_by_ngrams
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.formats.pairs import guess_source, read_pairs
from dragoman.text.lines import Sourced
from dragoman.train.run import start

TRAINED = [("the red house", "R"), ("a green tree", "G"), ("the red car sees a dog", "D"), ("one big cat", "C")]


def pair(source, target="x"):
    return Sourced(source, target, "")


@pytest.fixture
def run(tmp_path):
    """A translator with random weights and a training text of four pairs."""
    path = make("translation", tmp_path / "run")
    tokenizers = RunDirectory.open(path).tokenizers()
    (path / "data").mkdir()
    ParallelCorpus.build(path / "data" / "train", [pair(*each) for each in TRAINED], *tokenizers)
    return path


@pytest.fixture
def subject(run):
    return inspect.Subject.open(run)


def test_the_pair_that_shares_most_rare_ngrams_is_nearest_and_an_equal_source_has_all_of_them(subject, monkeypatch):
    column = ParallelCorpus.open(subject.run / "data" / "train").source
    queries = [subject.encode_source(text) for text in ("the red house", "a red car sees", "zzz")]
    found = nearest_by_ngrams(column, queries, 2)
    assert found[0][0].row == 0
    assert found[0][0].nearness == pytest.approx(1)
    assert found[1][0].row == 2
    assert 0.5 < found[1][0].nearness < 1
    assert found[2] == []
    assert all(first.nearness >= second.nearness for first, second in (some for some in found if len(some) == 2))
    monkeypatch.setattr(neighbours, "CHUNK", 1)
    chunked = nearest_by_ngrams(column, queries, 2)
    assert [[one.row for one in some] for some in chunked] == [[one.row for one in some] for some in found]


def test_ngrams_equal_a_plain_count_of_them(subject):
    column = ParallelCorpus.open(subject.run / "data" / "train").source

    def grams(ids):
        return {tuple(ids[i : i + n]) for n in range(1, 5) for i in range(len(ids) - n + 1)}

    rows = [grams(column[i].tolist()) for i in range(len(column))]
    seen = Counter(gram for row in rows for gram in row)
    query = grams(subject.encode_source("a red dog sees the tree"))
    weight = {gram: np.log(5 / (seen[gram] + 1)) + 1e-6 for gram in query}
    plain = [sum(weight[gram] for gram in query & row) / sum(weight.values()) for row in rows]
    found = nearest_by_ngrams(column, [subject.encode_source("a red dog sees the tree")], 4)[0]
    assert {one.row: pytest.approx(one.nearness) for one in found} == dict(enumerate(plain))


def test_an_equal_source_is_nearest_by_the_encoder_whatever_the_padding(subject):
    column = ParallelCorpus.open(subject.run / "data" / "train").source
    found = nearest_by_encoder(subject, column, [subject.encode_source("a green tree")], 2, most=10)[0]
    assert found[0].row == 1
    assert found[0].nearness == pytest.approx(1, abs=1e-5)
    alone, together = (
        encoded(subject, rows) for rows in ([column[1].tolist()], [column[2].tolist(), column[1].tolist()])
    )
    np.testing.assert_allclose(alone[0], together[1], atol=1e-5)


def test_words_are_counted_in_training_and_what_it_had_is_not_a_new_failure(subject):
    failures = [pair("the purple house", "R new"), pair("The red house!", "R")]
    report = inspect.trace_failures(subject, failures)
    first, second = report.failures
    assert first.rare_source == {"the": 2, "purple": 0, "house": 1}
    assert first.rare_target == {"r": 1, "new": 0}
    assert (first.trained, second.trained) == (False, True)
    assert [one.source for one in report.for_hard_set] == ["the purple house"]
    assert report.missing["house"] == 2
    assert first.by_ngrams[0].source == "the red house"
    assert first.by_ngrams[0].target == "R"


def test_proposals_have_the_missing_words_and_are_like_no_failure():
    missing = Counter({"purple": 3, "zebra": 1})
    pool = [
        pair("a zebra runs across the wide plain", "1"),
        pair("purple curtains hang in every room", "2"),
        pair("my purple zebra eats green grass", "3"),
        pair("nothing of the kind is said here", "4"),
        pair("the purple house", "5"),
    ]
    found = list(proposals(pool, missing, [pair("The purple house!", "y")], 10))
    assert [one.target for one in found] == ["3", "2", "1"]
    assert [one.target for one in proposals(pool, missing, [], 1)] == ["3"]
    many = [pair(f"purple thing number {i} of a long list", str(i)) for i in range(9)]
    assert len(list(proposals(many, missing, [], 9))) == 3  # each word so often at most


def test_words_are_compared_without_case_and_punctuation():
    assert words_of_text("Don't stop, the DOG-house: 3.5 (ça)!") == ["don't", "stop", "the", "dog-house", "3.5", "ça"]


def test_a_hard_set_only_grows(tmp_path):
    path = tmp_path / "hard.jsonl"
    assert inspect.grow_hard_set(path, [pair("a", "b"), pair("a", "b"), pair("a", "c")]) == (2, 2)
    before = path.read_bytes()
    assert inspect.grow_hard_set(path, [pair("a", "b")]) == (0, 2)
    assert path.read_bytes() == before
    path.write_bytes(before.removesuffix(b"\n"))  # as an editor may leave it
    assert inspect.grow_hard_set(path, [pair("d", "e")]) == (1, 3)
    assert path.read_bytes().startswith(before)
    path.write_text("no pair\n")
    with pytest.raises(DataError, match=r"hard.jsonl:1"):
        inspect.grow_hard_set(path, [pair("f", "g")])
    assert path.read_text() == "no pair\n"


def test_trace_grows_the_hard_set_writes_proposals_and_says_how_to_evaluate(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failures.tsv").write_text("the purple house\tX\na zebra\tY\n")
    (tmp_path / "pool.tsv").write_text("my purple zebra eats green grass\tZ\nnothing at all\tW\n")
    given = ["trace", str(run), "failures.tsv", "--pool", "pool.tsv", "-o", "add.tsv"]
    assert main([*given, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["new"], found["hard"]) == (2, 2)
    assert found["proposals"] == [{"source": "my purple zebra eats green grass", "target": "Z"}]
    assert (tmp_path / "add.tsv").read_text() == "my purple zebra eats green grass\tZ\n"
    assert main(given) == 0
    told = capsys.readouterr().out
    assert "0 new, 2 in all" in told
    assert "purple (never)" in told
    assert main([*given[:3], "--hard-set", "elsewhere.jsonl", "--no-grow"]) == 0
    assert not (tmp_path / "elsewhere.jsonl").exists()


@pytest.mark.parametrize("output", ["add.tsv", "add.tsv.gz", "add.jsonl", "add.en,add.de"])
def test_proposals_are_read_back_pair_for_pair_whatever_space_they_hold(output, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failures.tsv").write_text("purple zebra\tX\n")
    pool = [("my purple\nhat", "a\tb\r\nc"), (" zebra\u2028crossing\r", "d")]
    lines = (json.dumps({"source": source, "target": target}) + "\n" for source, target in pool)
    (tmp_path / "pool.jsonl").write_text("".join(lines))
    assert main(["trace", str(run), "failures.tsv", "--pool", "pool.jsonl", "-o", output, "--no-grow"]) == 0
    found = {(pair.source, pair.target) for pair in read_pairs(guess_source(output))}
    assert found == {("my purple hat", "a b c"), ("zebra crossing", "d")}


def test_a_name_that_shows_no_format_is_refused_before_the_work(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failures.tsv").write_text("purple zebra\tX\n")
    (tmp_path / "pool.tsv").write_text("my purple hat\tY\n")
    assert main(["trace", str(run), "failures.tsv", "--pool", "pool.tsv", "-o", "add.csv"]) == 2
    assert "add.csv: its name does not show the format" in capsys.readouterr().err
    assert not (tmp_path / "add.csv").exists()


@pytest.mark.parametrize("option", [["--output", "add.tsv"], ["--propose", "5"]], ids=lambda o: o[0])
def test_options_of_proposals_without_a_pool_are_refused(option, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failures.tsv").write_text("purple zebra\tX\n")
    assert main(["trace", str(run), "failures.tsv", *option]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{option[0]}: is for proposals: name pairs with --pool" in err


def test_a_later_run_is_evaluated_on_the_hard_set_by_itself(tmp_path, capsys):
    for _ in start(
        tiny_run.config(tiny_run.write_pairs(tmp_path / "pairs.tsv"), budget={"kind": "steps", "steps": 2}),
        tmp_path / "run",
    ).events():
        pass
    (tmp_path / "failures.tsv").write_text("purple zebra\tELPRUP ARBEZ\n")
    assert main(["trace", str(tmp_path / "run"), str(tmp_path / "failures.tsv")]) == 0
    hard = tmp_path / "run" / "data" / "hard.jsonl"
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), str(hard)]) == 0
    assert (tmp_path / "run" / "evaluations" / "hard" / "scores.json").exists()


BAD = {
    "no such file": ("nowhere.tsv", None, "nowhere.tsv"),
    "no reference": ("f.tsv", "only one column\n", "f.tsv"),
    "empty": ("f.tsv", "", "f"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_of_trace_is_told_in_one_line_and_leaves_the_hard_set(case, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name, content, told = BAD[case]
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["trace", str(run), name]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and told in err
    assert not (run / "data" / "hard.jsonl").exists()


def test_a_run_without_its_training_text_and_one_of_another_kind_are_told(tmp_path, capsys):
    (tmp_path / "f.tsv").write_text("a\tb\n")
    for kind in ("translation", "language_model"):
        path = make(kind, tmp_path / kind)
        assert main(["trace", str(path), str(tmp_path / "f.tsv")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "data/train" in first
    assert "use `dragoman generate`" in second
