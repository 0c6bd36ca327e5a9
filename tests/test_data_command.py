"""dragoman data: what the commands write and say, and how they refuse."""

import json
import sys

import pytest

from dragoman.cli import main
from dragoman.text.cleaning.clean import Cleaning, clean
from dragoman.text.formats.pairs import guess_source, read_pairs
from dragoman.text.lines import Pair

PAIRS = [
    Pair("Turn on the light in the kitchen", "Licht in der Küche einschalten"),
    Pair("Turn on the light in the kitchen", "Licht in der Küche einschalten"),
    Pair("Turn on the lights in the kitchen", "Lichter in der Küche einschalten"),
    Pair("The battery is low", "Die Batterie ist schwach"),
    Pair("The battery is low", "Akku schwach"),
    Pair("Bluetooth", "Bluetooth"),
    Pair("Wait 5 minutes", "Warte 6 Minuten"),
    Pair("[bold]Zigbee 3[/bold]", "Ζίγκμπι 3"),
]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(pair._asdict(), ensure_ascii=False) + "\n" for pair in PAIRS), encoding="utf-8")
    return "corpus.jsonl"


def run(*arguments, capsys):
    capsys.readouterr()
    code = main(["data", *arguments])
    return code, *capsys.readouterr()


def pairs_in(path):
    return list(read_pairs(guess_source(str(path))))


SETTINGS = [[], ["copies=keep", "duplicates=keep"], ["numbers=drop", "target_scripts=[latin]", "conflicts=drop"]]


@pytest.mark.parametrize("settings", SETTINGS)
def test_clean_writes_what_the_rules_leave_and_reports_what_they_take(settings, corpus, tmp_path, capsys):
    code, out, _ = run("clean", corpus, "-o", "out.tsv.gz", *settings, "--report", "report.json", capsys=capsys)
    assert code == 0
    changed = {"copies": "drop", "duplicates": "drop"} | dict(setting.split("=") for setting in settings)
    changed |= {key: ("latin",) for key in changed if key == "target_scripts"}
    assert pairs_in(tmp_path / "out.tsv.gz") == list(clean(PAIRS, Cleaning(**changed)))
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["read"] == len(PAIRS) == report["kept"] + sum(report["removed"].values())
    for rule, count in report["removed"].items():
        assert f"{rule} " in out and len(report["examples"][rule]) == min(count, 3)
        assert all(f"{rule}: {source} | {target}" in out for source, target in report["examples"][rule])


def test_an_empty_result_names_the_rule_that_emptied_it_and_leaves_the_old_file(corpus, tmp_path, capsys):
    (tmp_path / "out.tsv").write_text("old\talt\n")
    code, _, err = run("clean", corpus, "-o", "out.tsv", "target_scripts=[thai]", "duplicates=keep", capsys=capsys)
    assert code == 2 and err.count("\n") == 1
    assert "corpus.jsonl: nothing is left (0 of 8 pairs kept; removed: script 7, copy 1)" in err
    assert (tmp_path / "out.tsv").read_text() == "old\talt\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "out.tsv"]


def test_dedupe_shows_what_a_near_duplicate_is_like(corpus, tmp_path, capsys):
    code, out, _ = run("dedupe", corpus, "-o", "out.jsonl", "near=0.7", capsys=capsys)
    assert code == 0 and pairs_in(tmp_path / "out.jsonl") == [PAIRS[0], *PAIRS[3:]]
    assert f"near: {' | '.join(PAIRS[2])}\n  is like {' | '.join(PAIRS[0])}" in out
    code, _, _ = run("dedupe", corpus, "-o", "out.en,out.de", "near=null", "by=source", capsys=capsys)
    assert code == 0 and len(pairs_in("out.en,out.de")) == 6


def test_split_writes_parts_that_are_the_whole(corpus, tmp_path, capsys):
    arguments = ["split", corpus, "-o", "parts", "test=1", "valid=1", "near=null", "--ending", ".jsonl.zst"]
    code, out, _ = run(*arguments, "--report", "report.json", capsys=capsys)
    assert code == 0 and "train" in out
    parts = {name: pairs_in(tmp_path / "parts" / f"{name}.jsonl.zst") for name in ("train", "valid", "test")}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["pairs"] == {name: len(part) for name, part in parts.items()}
    assert len(PAIRS) == sum(map(len, parts.values())) + sum(report["removed"].values())
    code, _, err = run(*arguments, capsys=capsys)
    assert code == 2 and "parts: exists" in err


def test_mix_repeats_itself_with_the_same_seed(corpus, tmp_path, capsys):
    (tmp_path / "small.tsv").write_text("a\tb\nc\td\n")
    outputs = []
    for seed in ("1", "1", "2"):
        arguments = ["mix", corpus, "small.tsv", "-o", "out.tsv", "--weights", "1,2", "--pairs", "60", "--seed", seed]
        code, out, _ = run(*arguments, "--temperature", "2", capsys=capsys)
        assert code == 0 and "small.tsv" in out
        outputs.append(pairs_in(tmp_path / "out.tsv"))
    assert outputs[0] == outputs[1] != outputs[2]
    assert sum(pair in PAIRS for pair in outputs[0]) == 30  # 1 x 8^(1/2) against 2 x 2^(1/2)


def test_stats_count_and_draw(corpus, capsys):
    code, out, _ = run("stats", corpus, capsys=capsys)
    assert code == 0 and "█" in out and "greek" in out
    code, out, _ = run("stats", corpus, "--format", "json", capsys=capsys)
    figures = json.loads(out)
    assert (figures["pairs"], figures["duplicates"], figures["copies"], figures["conflicts"]) == (8, 1, 1, 1)
    assert sum(figures["source"]["words_in_a_text"].values()) == 8
    assert figures["source"]["characters"]["["] == 2


WRITTEN_OUT = {
    "a source": "{kind: json_lines, path: corpus.jsonl}",
    "a list": "[corpus.jsonl, {kind: json_lines, path: corpus.jsonl, source: target, target: source}]",
    "a run file": "run.yaml",
}


@pytest.mark.parametrize("given", WRITTEN_OUT)
def test_sources_are_named_or_written_out(given, corpus, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        "preset: transformer-tiny\ndata: {train: [{kind: json_lines, path: corpus.jsonl}]}\n"
    )
    code, out, _ = run("stats", WRITTEN_OUT[given], "--format", "json", capsys=capsys)
    assert code == 0 and json.loads(out)["pairs"] == (16 if given == "a list" else 8)


CLEAN = ["clean", "CORPUS", "-o"]
MISTAKES = {
    "a missing source": (["stats", "absent.tsv"], "absent.tsv: no such file"),
    "a source of no known kind": (["stats", "corpus.docx"], "corpus.docx: a Word document, which holds no pairs"),
    "a misspelt kind": (["stats", "{kind: tmxx, path: a}"], "Did you mean 'tmx'?"),
    "no source": (["stats", "[]"], "source: an empty list"),
    "a run file without text": (
        ["stats", "empty.yaml"],
        "empty.yaml: neither a source, a list of them, nor a run file",
    ),
    "a misspelt rule": ([*CLEAN, "o.tsv", "numbrs=drop"], "cleaning: no 'numbrs' here. Did you mean 'numbers'?"),
    "an unknown script": ([*CLEAN, "o.tsv", "source_scripts=[latn]"], "Did you mean 'latin'?"),
    "a setting that is none": ([*CLEAN, "o.tsv", "numbers"], "'numbers': write PATH=VALUE"),
    "an output of no known kind": ([*CLEAN, "o.docx"], "o.docx: its name does not show the format"),
    "an output without a folder": ([*CLEAN, "absent/o.tsv"], "absent/o.tsv: there is no folder absent"),
    "a similarity out of range": (["dedupe", "CORPUS", "-o", "o.tsv", "near=2"], "deduplication.near: must be"),
    "too few to hold out": (["split", "CORPUS", "-o", "parts"], "are too few to hold out 1,000 for test"),
    "weights all zero": (["mix", "CORPUS", "CORPUS", "-o", "o.tsv", "--weights", "0,0"], "all are zero"),
    "weights that are no numbers": (["mix", "CORPUS", "-o", "o.tsv", "--weights", "x"], "--weights x: expected"),
    "a weight that is no number": (
        ["mix", "CORPUS", "CORPUS", "-o", "o.tsv", "--weights", "nan,1"],
        "expected a finite number, got nan",
    ),
    "fewer weights than sources": (["mix", "CORPUS", "CORPUS", "-o", "o.tsv", "--weights", "1"], "1 weights for 2"),
    "a temperature below 1": (["mix", "CORPUS", "-o", "o.tsv", "--temperature", "0"], "mixing.temperature: must be"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(mistake, corpus, tmp_path, capsys):
    (tmp_path / "empty.yaml").write_text("preset: transformer-tiny\n")
    arguments, message = MISTAKES[mistake]
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run(*[corpus if a == "CORPUS" else a for a in arguments], capsys=capsys)
    assert code == 2 and message in err and err.startswith("dragoman: ") and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_near_duplicates_without_rensa_say_what_to_install(corpus, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    code, _, err = run("dedupe", corpus, "-o", "o.tsv", capsys=capsys)
    assert code == 2 and "pip install rensa (the extra data)" in err
