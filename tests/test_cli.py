"""The command line as its users meet it: what it prints, what it returns, and what it leaves alone."""

import json
import random
import re
import subprocess
import sys

import pytest

from dragoman.cli import main

COMMANDS = [
    "train",
    "translate",
    "evaluate",
    "generate",
    "average",
    "merge",
    "demo",
    "score",
    "calibrate",
    "verify",
    "inspect",
    "explain",
    "doctor",
    "checklist",
    "patch",
    "probe",
    "trace",
    "search-mixture",
    "compare",
    "claims",
    "data",
    "data stats",
    "data clean",
    "data dedupe",
    "data split",
    "data mix",
    "augment",
    "augment back-translate",
    "augment distill",
    "config",
    "config show",
    "config schema",
    "config diff",
]
TINY = [
    "tokenizer={kind: characters}",
    "model.dim=32",
    "model.*.depth=1",
    "model.*.pattern.*.mlp.hidden=64",
    "model.*.pattern.*.dropout=0.0",
    "model.dropout=0.0",
    "data.hold_out={test: 20, valid: 20, near: null}",
    "data.cleaning.copies=keep",
    "train.batch_tokens=1024",
    "train.schedule={kind: cosine, peak: 0.01, warmup: 20}",
    "train.average=null",
    "task.label_smoothing=0.0",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Words spelt backwards: a task that attention learns in seconds."""
    choose = random.Random(0)
    words = {"".join(choose.choices("abcdef", k=choose.randint(2, 5))) for _ in range(2000)}
    path = tmp_path_factory.mktemp("text") / "words.tsv"
    path.write_text("".join(f"{w}\t{w[::-1]}\n" for w in sorted(words)))
    return path


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "backwards"
    arguments = ["train", "--pairs", str(corpus), "--preset", "transformer-tiny", "--run", str(path)]
    assert main([*arguments, *TINY, "train.budget={kind: steps, steps: 400}", "train.validate_every=200"]) == 0
    return path


def said(capsys):
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert "Usage" in said(capsys)[0]


def test_help_does_not_wait_for_torch():
    code = "import sys, dragoman.cli as c\nc.main(['--help'])\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_parallel_text_becomes_a_translator(run, capsys):
    said(capsys)
    assert main(["translate", str(run), "abcd", "--beam", "2"]) == 0
    assert said(capsys)[0] == "dcba\n"


def test_as_many_lines_come_out_as_go_in(run, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("abc\n\n  \nfade\u2028d\r\ncab")
    assert main(["translate", str(run), str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.txt"), "--beam", "1"]) == 0
    lines = (tmp_path / "out.txt").read_text().split("\n")
    assert len(lines) == 6 and lines[5] == ""
    assert lines[0] == "cba" and lines[1] == lines[2] == "" and lines[4] == "bac"


def test_evaluation_prints_scores_with_signatures_and_keeps_outputs(run, capsys):
    assert main(["evaluate", str(run), "--beam", "1"]) == 0
    out = said(capsys)[0]
    assert "chrF" in out and "version:" in re.sub(r"\s", "", out)
    assert len((run / "evaluations" / "test" / "translations.txt").read_text().splitlines()) == 20


def test_evaluation_takes_a_search_in_full_and_metrics_by_name(run, capsys):
    options = ["--search", "beam: {size: 2, stop: first}", "--metric", "ter", "--metric", "bleu_lowercase_as_given"]
    assert main(["evaluate", str(run), *options, "--name", "own"]) == 0
    assert "TER" in (out := said(capsys)[0]) and "chrF" not in out
    kept = json.loads((run / "evaluations" / "own" / "scores.json").read_text())
    assert kept["search"]["size"] == 2 and list(kept["scores"]) == ["ter", "bleu_lowercase_as_given"]


def test_a_longer_budget_goes_on_where_the_run_stopped(run, capsys):
    assert main(["train", str(run), "--resume", "train.budget={kind: steps, steps: 410}"]) == 0
    assert "resuming after step 400" in said(capsys)[0]
    assert (run / "last").resolve().name == "step-000410"


def test_checkpoints_are_averaged_into_one_that_translates(run, capsys):
    assert main(["average", str(run), "--last", "2"]) == 0
    assert main(["translate", str(run), "abcd", "--checkpoint", "average-last-2", "--beam", "1"]) == 0
    assert said(capsys)[0].endswith("dcba\n")


def test_configurations_are_shown_and_compared(run, capsys):
    assert main(["config", "show", str(run), "model.dim=64"]) == 0
    assert "dim: 64" in said(capsys)[0]
    assert main(["config", "diff", str(run), str(run)]) == 0
    assert said(capsys)[0] == "no differences\n"
    assert main(["config", "diff", "transformer-base", "transformer-big"]) == 1
    assert "model.dim" in said(capsys)[0]


def test_compared_configurations_are_shown_as_run_files_have_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, path, valid in (("a", "data[en]/c.tsv", "null"), ("b", "[/x].tsv", "{kind: table, path: '[/y].tsv'}")):
        text = f"preset: transformer-tiny\ndata:\n  train: [{{kind: table, path: '{path}'}}]\n  valid: {valid}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    assert main(["config", "diff", "a.yaml", "b.yaml"]) == 1
    shown = {line.split("\t")[0]: line.split("\t")[1:] for line in said(capsys)[0].splitlines()}
    assert shown["data.train.0.path"] == ["data[en]/c.tsv", "[/x].tsv"]
    assert shown["data.valid"][0] == "null"
    assert main(["config", "diff", "transformer-base", "lm-tiny"]) == 1
    assert ["model.dropout", "0.1", "0.1"] not in (lines := [line.split("\t") for line in said(capsys)[0].splitlines()])
    assert any(line[1] == "absent" or line[2] == "absent" for line in lines)
    assert not any("…" in word for line in lines for word in line)
    assert len({line[0] for line in lines}) == len(lines)


NAMES = ["data[en]/c.tsv", "[/x]", "[bold]a"]


def test_names_are_shown_as_they_are_whatever_they_look_like(capsys):
    from dragoman.cli import data_tables, evaluate_reader
    from dragoman.cli.terminal import console

    said(capsys)
    data_tables.show_mixture(NAMES, [1, 2, 3], [1, 2, 3])
    assert [line.split()[0] for line in said(capsys)[0].splitlines()][1:] == NAMES
    console().print(evaluate_reader._confusion(NAMES, [[1, 2, 3]] * 3, {}))
    heading, *rows = [line.split() for line in said(capsys)[0].splitlines()]
    assert heading[-4:-1] == NAMES == [row[0] for row in rows]


# ---- mistakes: one line that names the place and the remedy, exit code 2, nothing lost ---------------


NEW = ["train", "--pairs", "CORPUS"]
MISTAKES = {
    "a missing run file": (["train", "absent.yaml"], "absent.yaml: no such file"),
    "nothing to train on": (["train"], "name a run file, or give parallel text with --pairs"),
    "missing text": (["train", "--pairs", "absent.tsv"], "absent.tsv: no such file"),
    "an unknown preset": ([*NEW, "--preset", "transformer-smal"], "Did you mean 'transformer-small'?"),
    "an unknown key": ([*NEW, "model.decoder.dept=4"], "model.decoder: no 'dept' here. Did you mean 'depth'?"),
    "an ill-typed value": ([*NEW, "train.batch_tokens=many"], "train.batch_tokens: expected a whole number"),
    "heads that do not divide": ([*NEW, "model.dim=250"], "do not divide"),
    "a vocabulary too small": ([*NEW, *TINY, "tokenizer={kind: bpe, vocab: 9}"], "vocab"),
    "a run that exists": ([*NEW, "--run", "RUN"], "--resume"),
    "a resume that differs": (["train", "RUN", "--resume", "model.dim=64"], "model.dim was 32, is now 64"),
    "a resume of other pairs": (["train", "RUN", "--resume", "--pairs", "CORPUS"], "--pairs: is for a new run"),
    "a resume of a preset": (["train", "RUN", "--resume", "--preset", "lm-tiny"], "--preset: is for a new run"),
    "a resume of columns": (["train", "RUN", "--resume", "--columns", "a,b"], "--columns: is for a new run"),
    "a resume elsewhere": (["train", "RUN", "--resume", "--run", "z"], "--run: is for a new run"),
    "a start at a checkpoint": ([*NEW, "--checkpoint", "step-2"], "--checkpoint: is for --resume"),
    "a deliberate start": ([*NEW, "--deliberate"], "--deliberate: is for --resume"),
    "no such run": (["translate", "absent-run", "abc"], "absent-run"),
    "no such checkpoint": (["translate", "RUN", "abc", "--checkpoint", "step-999999"], "step-999999"),
    "a missing input file": (["translate", "RUN", "absent.txt"], "absent.txt: no such file"),
    "a missing test set": (["evaluate", "RUN", "absent.tsv"], "absent.tsv: no such file"),
    "an unknown metric": (["evaluate", "RUN", "--metric", "blue"], "no 'blue' here. Did you mean 'bleu'?"),
    "a row with one column": (["evaluate", "RUN", "ONE_COLUMN"], ":2: "),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(mistake, run, corpus, tmp_path, monkeypatch, capsys):
    (tmp_path / "one-column.tsv").write_text("abc\tcba\nabc\n")
    names = {"CORPUS": str(corpus), "RUN": str(run), "ONE_COLUMN": str(tmp_path / "one-column.tsv")}
    arguments, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    before = sorted(run.rglob("*"))
    said(capsys)
    assert main([names.get(a, a) for a in arguments]) == 2
    _, err = said(capsys)
    assert message in err and err.startswith("dragoman: ") and err.count("\n") == 1
    assert sorted(run.rglob("*")) == before
    assert not list(tmp_path.glob("runs/*"))
