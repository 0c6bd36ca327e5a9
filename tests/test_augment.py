"""More pairs from text in one language: which side is which, what is left out, and that nothing is done twice."""

import os
import re
from pathlib import Path

import pytest
import tiny_run

from dragoman import cli
from dragoman.config import dump_yaml, load_yaml, merge, to_dict
from dragoman.decode import augment
from dragoman.decode.augment import Augmentation, back_translated, distilled
from dragoman.decode.search.sample import Sample
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError, DataError
from dragoman.text.formats.pairs import guess_source, read_pairs
from dragoman.text.lines import Pair
from dragoman.text.unfinished import UnfinishedFile, open_unfinished
from dragoman.train import recipe
from dragoman.train.run import start

DOCS = Path(__file__).parent.parent / "docs" / "prepare-data.md"
SEARCH = Sample(top_k=30)  # a model that has learnt next to nothing: chance ends its sentences


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augment")
    budget = {"kind": "steps", "steps": 1}
    cfg = tiny_run.config(tiny_run.write_pairs(folder / "ours.tsv"), budget=budget, samples=0, average=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        list(start(cfg, folder / "run").events())
    lines = [pair.target for pair in read_pairs(guess_source(str(folder / "ours.tsv")))][:21]
    (folder / "text.txt").write_text("\n".join([*lines[:10], "", " \t", *lines[10:]]) + "\n")
    return folder


@pytest.fixture(autouse=True)
def small_lots(monkeypatch):
    monkeypatch.setattr(augment, "CHUNK", 4)


def made(folder, output, making=distilled, **how):
    how = {"search": SEARCH, "precision": "float32"} | how
    done = Augmentation(folder / "run", making, **how).apply(folder / "text.txt", output, progress=how_far)
    return done, output.read_bytes()


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "CHUNK", 4)
        return made(folder, tmp_path_factory.mktemp("whole") / "o.tsv")


def how_far(done, total):
    assert 0 <= done <= total == 23


def test_back_translation_has_the_original_as_target_and_distillation_as_source(folder, tmp_path):
    made(folder, tmp_path / "b.tsv", back_translated), made(folder, tmp_path / "d.jsonl")
    back, forth = (list(read_pairs(guess_source(str(tmp_path / name)))) for name in ("b.tsv", "d.jsonl"))
    originals = (folder / "text.txt").read_text().splitlines()
    assert back and {pair.target for pair in back} <= set(originals)
    assert forth == [Pair(pair.target, pair.source) for pair in back]


def test_pairs_are_what_the_translator_says_but_for_what_it_did_not_end(folder, tmp_path):
    done, _ = made(folder, tmp_path / "d.jsonl")
    translator = Translator.load(folder / "run", precision="float32")
    said = translator.translate((folder / "text.txt").read_text().splitlines(), search=SEARCH)
    good = [t for t in said if t.text and not t.candidates[0].truncated]
    assert [pair.target for pair in read_pairs(guess_source(str(tmp_path / "d.jsonl")))] == [t.text for t in good]
    assert (done.lines, done.pairs, done.empty, done.refused) == (23, len(good), 2, 21 - len(good))
    assert 0 < done.refused < 21, "both happen"


def test_several_answers_make_as_many_pairs(folder, tmp_path):
    done, _ = made(folder, tmp_path / "d.jsonl", search=Sample(samples=3, top_k=30))
    assert done.pairs > 21


@pytest.mark.parametrize("lost", [0, 1, 60])
def test_what_was_stopped_goes_on_and_comes_to_the_same_bytes(folder, whole, tmp_path, monkeypatch, lost):
    output, partial, asked = tmp_path / "o.tsv", tmp_path / "o.tsv.partial", set()
    translate, append = Translator.translate, UnfinishedFile.append

    def counted(self, texts, **options):
        asked.update(request.text for request in texts)
        return translate(self, texts, **options)

    def stopped(self, lot):
        append(self, lot)
        if self.lines == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(Translator, "translate", counted)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(UnfinishedFile, "append", stopped)
        made(folder, output)
    assert partial.exists() and not output.exists()
    os.truncate(partial, partial.stat().st_size - lost)  # a crash in the middle of a line
    before = set(asked)
    asked.clear()
    assert made(folder, output) == whole
    assert len(asked & before) == (2 if lost else 0), "but for the lot that was cut, nothing is translated twice"
    assert not partial.exists()


def test_what_was_begun_otherwise_is_not_gone_on_with(folder, tmp_path, monkeypatch):
    def stop(done, total):
        raise KeyboardInterrupt

    def begin(text=folder / "text.txt", progress=how_far, **how):
        how = {"search": SEARCH, "precision": "float32"} | how
        Augmentation(folder / "run", distilled, **how).apply(text, tmp_path / "o.tsv", progress=progress)

    with pytest.raises(KeyboardInterrupt):
        begin(progress=lambda done, total: stop(done, total) if done == 8 else None)
    with pytest.raises(
        ConfigError, match=r"o\.tsv\.partial: was started with precision float32, but this command has bfloat16"
    ):
        begin(precision="bfloat16")
    with pytest.raises(
        ConfigError, match=r"was started with search .*'top_k': 30.*, but this command has .*'top_k': 3,"
    ):
        begin(search=Sample(top_k=3))
    other = tmp_path / "other.txt"
    other.write_text("\n".join(["changed", *(folder / "text.txt").read_text().split("\n")[1:]]))
    with pytest.raises(DataError, match=r"other\.txt:1: is not what it was when .*o\.tsv\.partial was begun"):
        begin(other)
    begin(precision="auto")  # what the machine chose, or was told, at first
    (tmp_path / "o.tsv.partial").write_text("notes of mine\n")
    with pytest.raises(
        ConfigError, match="its first line does not hold the settings it was started with: move that file away"
    ):
        begin()
    assert (tmp_path / "o.tsv.partial").read_text() == "notes of mine\n"


def test_one_process_at_a_time(folder, tmp_path):
    with open_unfinished(tmp_path / "o.tsv"), pytest.raises(ConfigError, match="another process is writing to it"):
        made(folder, tmp_path / "o.tsv")
    assert not list(tmp_path.iterdir())


# ---- as its users meet it -------------------------------------------------------------------------


def test_what_is_wrong_is_one_line_and_leaves_nothing_behind(folder, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text("\n\n")
    run, text, out = str(folder / "run"), str(folder / "text.txt"), str(tmp_path / "o.tsv")
    cases = [
        ([run, str(tmp_path / "nosuch.txt"), "-o", out], "nosuch.txt: no such file"),
        ([run, str(tmp_path / "empty.txt"), "-o", out], "empty.txt: no lines in it"),
        ([run, str(tmp_path / "blank.txt"), "-o", out], "no pair came of it (0 pairs from 2 lines; left out: 2 empty"),
        ([run, text, "-o", "o.pdf"], "o.pdf: its name does not show the format"),
        ([run, text, "-o", str(tmp_path / "no" / "o.tsv")], "there is no folder"),
        ([run + "x", text, "-o", out], "no such run directory"),
        ([run, text, "-o", out, "--tag", "bt"], "tag: no 'bt' here"),
        ([run, text, "-o", out, "--device", "cudo"], "device cudo"),
    ]
    for arguments, message in cases:
        assert cli.main(["augment", "distill", *arguments]) == 2
        told = capsys.readouterr().err
        assert message in told and told.startswith("dragoman: ") and told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank.txt", "empty.txt"]


def test_ctrl_c_says_how_to_go_on(folder, tmp_path, capsys, monkeypatch):
    def stopped(self, texts, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Translator, "translate", stopped)
    command = [
        "augment",
        "back-translate",
        str(folder / "run"),
        str(folder / "text.txt"),
        "-o",
        str(tmp_path / "o.tsv"),
    ]
    assert cli.main(command) == 130
    assert f"the same command resumes from {tmp_path / 'o.tsv'}.partial" in capsys.readouterr().err


def test_the_run_file_on_the_page_trains_on_what_was_made(folder, tmp_path, monkeypatch):
    section = DOCS.read_text().split("## More pairs: back-translation and distillation")[1].split("\n## ")[0]
    command = ["augment", "back-translate", str(folder / "run"), str(folder / "text.txt"), "--sample", "1"]
    assert cli.main([*command, "-o", str(tmp_path / "back.tsv")]) == 0
    (tmp_path / "ours.tsv").write_bytes((folder / "ours.tsv").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    [page] = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    cfg = recipe.load(merge(_but_for_the_text(folder), load_yaml(page)))
    list(start(cfg, "new").events())
    held = (tmp_path / "new" / "data" / "valid.jsonl").read_text() + (
        tmp_path / "new" / "data" / "test.jsonl"
    ).read_text()
    assert held and "bt" not in held
    assert Translator.load("new").source_tokenizer.tags == ["bt"]


def _but_for_the_text(folder):
    plain = to_dict(tiny_run.config(folder / "ours.tsv", budget={"kind": "steps", "steps": 1}, samples=0, average=None))
    del plain["data"]["train"]
    return load_yaml(dump_yaml(plain), where="tiny")
