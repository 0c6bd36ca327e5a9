"""dragoman evaluate: what it prints and keeps, and how two runs are compared."""

import json
import os
import re
import shlex
import shutil
import sys

import pytest
import tiny_run
from typer.testing import CliRunner

from dragoman.cli import app, main
from dragoman.errors import ConfigError
from dragoman.evaluate.folders import corpus_id, folder_for, journal_name
from dragoman.evaluate.metrics import METRICS, compare
from dragoman.train.run import start


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in their seed, and a test set that is neither's."""
    folder = tmp_path_factory.mktemp("runs")
    pairs = tiny_run.write_pairs(folder / "pairs.tsv")
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda handle: None)
    for seed in (1, 2):
        list(start(tiny_run.config(pairs, seed=seed), folder / f"run-{seed}").events())
    patch.undo()
    (folder / "news.tsv").write_text("the red house\tEHT DER ESUOH\na dog\tA GOD\ntwo cars\tOWT SRAC\n")
    (folder / "other").mkdir()
    (folder / "other" / "news.tsv").write_text("one tree\tENO EERT\n")
    return folder


@pytest.fixture
def run(runs, tmp_path):
    shutil.copytree(runs / "run-1", tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def printed(*words):
    result = CliRunner().invoke(app, ["evaluate", *map(str, words), "--beam", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_files_of_one_name_in_two_folders_do_not_overwrite_each_other(runs, run):
    for named in ("news.tsv", "other/news.tsv", "news.tsv", "other/news.tsv"):
        printed(run, runs / named)
    found = [json.loads(path.read_text()) for path in sorted(run.glob("evaluations/*/scores.json"))]
    assert sorted(one["sentences"] for one in found) == [1, 3]


@pytest.mark.parametrize("named", ["a/test.tsv", "b/test.tsv", "a/test.en,a/test.de", "test", "a/.tsv", None])
def test_every_test_set_finds_its_own_folder_again_whatever_came_before(tmp_path, named, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = ["a/test.tsv", "b/test.tsv", "a/test.en,a/test.de", "test", "a/.tsv", None]
    folders = {}
    for one in [named, *sets]:
        folder = folders[one] = folder_for(tmp_path, one)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.json").write_text(json.dumps({"test_set": corpus_id(one)}))
    assert len(set(folders.values())) == len(sets)
    assert all(folder_for(tmp_path, one) == folders[one] for one in sets)


def test_a_name_that_a_person_gives_is_taken(tmp_path):
    assert folder_for(tmp_path, "a/news.tsv", "mine") == tmp_path / "evaluations" / "mine"
    for name in ("", ".", "..", "../../zz", "a/b", "a\\b", "/tmp/zz", "a\0"):
        for place in (folder_for, journal_name):
            with pytest.raises(ConfigError, match="name: must be the name of one folder"):
                place(tmp_path, None, name)


def test_results_of_earlier_versions_are_not_overwritten_by_a_file(tmp_path):
    for name in ("test", "news"):
        (tmp_path / "evaluations" / name).mkdir(parents=True)
        (tmp_path / "evaluations" / name / "scores.json").write_text("{}")
    assert folder_for(tmp_path, None).name == "test", "what a run is evaluated on by default"
    assert folder_for(tmp_path, "x/news.tsv").name.startswith("news-")
    assert folder_for(tmp_path, "x/test.tsv").name.startswith("test-")


def test_json_is_what_is_kept(runs, run):
    told = json.loads(printed(run, runs / "news.tsv", "--format", "json"))
    assert told == json.loads((run / "evaluations" / "news" / "scores.json").read_text())
    assert told["test_set"] == str(runs / "news.tsv") and "bleu" in told["scores"]


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_signatures_are_whole_however_narrow_the_terminal_is(runs, run, columns, monkeypatch):
    from dragoman.cli.terminal import console

    monkeypatch.setenv("COLUMNS", columns)
    console.cache_clear()
    lines = printed(run, runs / "news.tsv").splitlines()
    console.cache_clear()
    assert f"BLEU: {METRICS['bleu'].signature}" in lines
    assert f"chrF: {METRICS['chrf'].signature}" in lines


def test_two_runs_are_compared_on_the_same_pairs_by_a_paired_test(runs, run):
    told = json.loads(printed(run, runs / "news.tsv", "--against", runs / "run-2", "--format", "json"))
    found = told["against"]["differences"]["chrf"]
    other = json.loads(printed(runs / "run-2", runs / "news.tsv", "--format", "json"))
    assert found["a"] == told["scores"]["chrf"]["value"] and found["b"] == other["scores"]["chrf"]["value"]
    texts = [
        [json.loads(line)["output"] for line in (path / "evaluations/news/outputs.jsonl").read_text().splitlines()]
        for path in (run, runs / "run-2")
    ]
    references = [line.split("\t")[1] for line in (runs / "news.tsv").read_text().splitlines()]
    assert found["p"] == compare(METRICS["chrf"], *texts, references).p


def test_a_run_does_not_differ_from_itself(runs, run):
    told = json.loads(printed(run, runs / "news.tsv", "--against", run, "--format", "json"))
    for found in told["against"]["differences"].values():
        assert found["a"] == found["b"] and found["p"] == 1.0 and found["interval"] == [0.0, 0.0]


def test_the_tables_name_both_runs_and_the_difference(runs, run):
    text = printed(run, runs / "news.tsv", "--against", runs / "run-2")
    assert f"A: {run}" in text and f"B: {runs / 'run-2'}" in text and "B - A" in text


def test_the_results_of_the_other_run_are_not_kept_as_this_ones(runs, run):
    before = json.loads(printed(run, runs / "news.tsv", "--format", "json"))["scores"]
    printed(run, runs / "news.tsv", "--against", runs / "run-2")
    assert json.loads((run / "evaluations" / "news" / "scores.json").read_text())["scores"] == before


@pytest.mark.parametrize(
    ("named", "stem"),
    [
        ("locale/**/*.po", "locale"),
        ("*.po", "test"),
        ("news-*.tsv", "news"),
        ("data/test?.tsv", "test"),
        ("a/b/[12]/*.tsv", "b"),
        ("../*.tsv", "test"),
        ("*/en.json,*/es.json", "en"),
        ("folder/", "folder"),
    ],
)
def test_a_pattern_is_kept_under_a_name_without_signs(named, stem, tmp_path):
    assert folder_for(tmp_path, named).name == stem


def test_files_of_one_name_are_followed_in_journals_of_their_own(runs, run, capsys):
    for named in (runs / "news.tsv", runs / "other" / "news.tsv", runs / "news.tsv"):
        printed(run, named, "--follow")
    journals = {path.name: path.read_text().splitlines() for path in (run / "evaluations").glob("*.jsonl")}
    assert len(journals) == 2 and "news.jsonl" in journals and all(name.startswith("news") for name in journals)
    assert {len({json.loads(line)["test_set"] for line in lines}) for lines in journals.values()} == {1}
    (run / "evaluations" / "valid.jsonl").write_text('{"step": 3, "seal": "x", "scores": {"BLEU": 1.0}}\n')
    assert journal_name(run, None) == "valid", "a journal of an earlier version is the run's own"
    assert journal_name(run, "valid.tsv").startswith("valid-")


@pytest.mark.parametrize("name", ["a.json", "b.docx", "c.srt.gz", "d.html"])
@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_a_kind_that_holds_no_pairs_is_refused_by_its_name(run, tmp_path, name, command, capsys):
    from dragoman.cli import main

    (tmp_path / name).write_text("{}")
    assert main([command, str(run), str(tmp_path / name)]) == 2
    assert "which holds no pairs" in capsys.readouterr().err


# ---- a program that scores sentences --------------------------------------------------------------

LENGTHS = """
import sys
for line in sys.stdin:
    source, output, reference = line.rstrip("\\n").split("\\t")
    print(len(source) / 100 + len(output))
"""


def scorer(folder, text):
    (folder / "score.py").write_text(text)
    return f"made={shlex.quote(sys.executable)} -S {shlex.quote(str(folder / 'score.py'))}"


def test_a_program_scores_each_sentence_and_its_mean_has_an_interval(runs, run, tmp_path):
    (tmp_path / "odd.tsv").write_text("a\u2028b\tx\n\u00a0é  e\ty\n", encoding="utf-8")
    for named in (runs / "news.tsv", tmp_path / "odd.tsv"):
        found = json.loads(printed(run, named, "--metric", scorer(tmp_path, LENGTHS), "--format", "json"))
        outputs = (folder_for(run, str(named)) / "outputs.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in outputs.strip().split("\n")]
        clean = [(" ".join(row["source"].split()), " ".join(row["output"].split())) for row in rows]
        want = sum(len(source) / 100 + len(output) for source, output in clean) / len(rows)
        assert found["scores"]["made"]["value"] == pytest.approx(want)
        low, high = found["scores"]["made"]["interval"]
        assert low <= want <= high and "score.py" in found["scores"]["made"]["signature"]
        assert found["scores"]["made"]["higher_is_better"] is None, "a program does not say"


def test_followed_by_a_program_that_does_not_say_what_is_better_both_ends_are_named(run, tmp_path):
    shown = printed(run, "--follow", "--metric", scorer(tmp_path, LENGTHS))
    lines = [json.loads(line) for line in (run / "evaluations" / "valid.jsonl").read_text().splitlines()]
    values = [line["scores"]["made"] for line in lines]
    assert re.search(rf"highest made: step \d+ \({max(values):.4g}\); lowest: step \d+ \({min(values):.4g}\)", shown)


def test_two_runs_are_compared_by_a_program(runs, run, tmp_path):
    table = printed(run, runs / "news.tsv", "--metric", scorer(tmp_path, LENGTHS), "--against", runs / "run-2")
    rows = [line.split() for line in table.partition("B - A")[2].splitlines() if line.startswith("made ")]
    ((_, a, b, change, *_),) = rows
    assert float(b) - float(a) == pytest.approx(float(change), abs=2e-4)
    assert all(re.fullmatch(r"[+-]?\d+\.\d{4}", number) for number in (a, b, change))


PROGRAMS = {
    "not there": ("made=/no/such/program x", "/no/such/program: No such file or directory"),
    "fails": ("import sys; print('loading'); sys.exit('no model is there')", "ended with code 1: no model is there"),
    "too few": ("import sys; sys.stdin.readline(); print(1)", "1 numbers for 3 lines"),
    "a word": (
        "import sys\nfor line in sys.stdin: print('good')",
        "line 1 of the program's answers is no number: 'good'",
    ),
    "not a number": ("import sys\nfor line in sys.stdin: print('nan')", "is no number: 'nan'"),
    "a quote": ("made=a 'b", "no closing quotation"),
    "no command": ("made=", "write NAME=COMMAND"),
    "no name": ("=wc", "write NAME=COMMAND"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_program_that_does_not_score_is_told_in_a_line(case, runs, run, tmp_path, capsys):
    given, says = PROGRAMS[case]
    given = given if "=" in given.split()[0] else scorer(tmp_path, given)
    assert main(["evaluate", str(run), str(runs / "news.tsv"), "--beam", "1", "--metric", given]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in error and "--metric" in error
    assert not list(run.glob("evaluations/*/scores.json"))
