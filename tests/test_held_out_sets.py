"""Every task stores what it holds out, and trains on nothing like its validation set."""

import json
from dataclasses import replace

import pytest
import tiny_tasks

from dragoman.config import merge
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.formats.documents import BlankLines, Drawn, Tail, Texts
from dragoman.text.formats.instructions import Instructions
from dragoman.text.formats.pairs import Part, Table
from dragoman.text.store import Store
from dragoman.train.events import Notice
from dragoman.train.recipe import load
from dragoman.train.run import start

SIZES = {"test": 3, "valid": 4, "hard": 2}
TASKS = ["translation", "instructions", "classification", "tagging", "question_answering", "contrastive"]
PIXELS = ["images", "frames", "captioning"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Run files by task, whose examples all differ."""
    folder = tmp_path_factory.mktemp("texts")
    tiny_tasks.write_texts(folder)
    files = tiny_tasks.run_files(folder)
    writer, pairs = files["language_modelling"], files["contrastive"]["data"]
    data = {"kind": "instructions", "train": pairs["train"], "hold_out": pairs["hold_out"]}
    return files | {"instructions": writer | {"data": data}}


@pytest.mark.parametrize("task", TASKS)
def test_what_is_held_out_is_stored_and_all_else_is_trained_on(files, tmp_path, task):
    cfg = load(merge(files[task], {"data": {"hold_out": SIZES}}))
    list(start(cfg, tmp_path / "run").prepare())
    data = tmp_path / "run" / "data"
    stored = {path.stem: path.read_text().splitlines() for path in data.glob("*.jsonl")}
    for name, count in SIZES.items():
        if task == "instructions" and name == "valid":
            assert len(Store.open(data / "valid").columns["text"]) == count
        else:
            assert len(stored[name]) == count
    assert len(next(iter(Store.open(data / "train").columns.values()))) == 60 - sum(SIZES.values())
    texts = [str(sorted(json.loads(line).items())) for lines in stored.values() for line in lines]
    assert len(set(texts)) == len(texts)


def test_a_hard_set_beside_given_validation_and_test_sets_is_held_out(files, tmp_path):
    data = files["classification"]["data"]
    given = {"valid": data["train"][0], "test": data["train"][0], "overlap": "keep", "hold_out": {"hard": 5}}
    list(start(load(merge(files["classification"], {"data": given})), tmp_path / "run").prepare())
    assert len((tmp_path / "run/data/hard.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize("task", ["translation", "contrastive"])
def test_given_pairs_are_normalised_as_training_pairs_are_and_those_with_an_empty_side_left_out(files, tmp_path, task):
    path = tmp_path / "given.tsv"
    path.write_text(
        "the  house\u00a0cafe\u0301 \tla  casa\u2003cafe\u0301\n" + "a dog\t\n" + "\u200b \t\u00a0\na cat\tun gato\n"
    )
    given = {"kind": "table", "path": str(path)}
    cfg = load(merge(files[task], {"data": {"valid": given, "test": given, "hold_out": {"test": 0, "valid": 0}}}))
    lines = [event.text for event in start(cfg, tmp_path / "run").prepare() if isinstance(event, Notice)]
    for name in ("validation", "test"):
        assert any(name in line and "empty side" in line and "2" in line for line in lines), lines
    for name in ("valid", "test"):
        stored = (tmp_path / "run/data" / f"{name}.jsonl").read_text().splitlines()
        pairs = [(record["source"], record["target"]) for record in map(json.loads, stored)]
        assert pairs == [("the house caf\u00e9", "la casa caf\u00e9"), ("a cat", "un gato")]
    assert len(next(iter(Store.open(tmp_path / "run/data/valid").columns.values()))) == 2


@pytest.mark.parametrize("task", PIXELS)
def test_of_what_has_no_words_no_hard_set_is_held_out(files, tmp_path, task):
    cfg = load(merge(files[task], {"data": {"hold_out": {"hard": 2}}}))
    with pytest.raises(ConfigError, match=r"^data\.hold_out\.hard: hard sets are for texts"):
        list(start(cfg, tmp_path / "run").prepare())
    assert not (tmp_path / "run").exists()


def test_instructions_read_the_prefix_of_a_source_and_hold_nothing_out_of_one_that_forbids_it(tmp_path):
    sources = []
    for name in ("said", "made"):
        (tmp_path / f"{name}.tsv").write_text("".join(f"{name} {text}\t{text}\n" for text in SENTENCES))
        sources.append(Part(pairs=Table(path=str(tmp_path / f"{name}.tsv")), prefix="Q: ", hold_out=name == "said"))
    found = Instructions(train=tuple(sources), hold_out=HoldOut(test=1, valid=2, near=None)).split()
    assert all(pair.source.startswith("Q: said") for pair in [*found.split.valid, *found.split.test])
    assert all(pair.source.startswith("Q: ") and not pair.target.startswith("Q") for pair in found.split.train)
    with pytest.raises(ConfigError, match=r"^data\.train\.1\.tags: are for translation"):
        Instructions(train=(sources[0], replace(sources[1], tags=("2de",)))).split()


# ---- a given validation set ------------------------------------------------------------------------

SENTENCES = [f"{name} was seen at {place} by nobody" for name in ("Anna", "Bela", "Cleo") for place in ("sea", "home")]


def instructions(train, valid, **options):
    sources = [Table(path=str(path)) for path in (train, valid)]
    return Instructions(train=(sources[0],), valid=sources[1], **options).split()


def texts(train, valid, **options):
    return Texts(files=(str(train),), valid=(str(valid),), documents=BlankLines(), **options).split()


ENDINGS = {instructions: ".tsv", texts: ".txt"}


def write(path, kind, sentences):
    lines = (f"{text}\t{text[::-1]}\n" if kind is instructions else f"{text}\n\n" for text in sentences)
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    ("kind", "options"),
    [(instructions, {}), (texts, {}), (texts, {"hold_out": Tail()}), (texts, {"hold_out": Drawn(near=0.95)})],
)
def test_text_like_a_given_validation_text_is_not_trained_on_unless_asked_for(tmp_path, kind, options):
    train = write(tmp_path / f"train{ENDINGS[kind]}", kind, SENTENCES)
    valid = write(tmp_path / f"valid{ENDINGS[kind]}", kind, [SENTENCES[1].upper() + "!", SENTENCES[4]])
    found = kind(train, valid, **options)
    expected = [text for i, text in enumerate(SENTENCES) if i not in (1, 4)]
    assert [one.source for one in found.split.train] == expected and len(found.split.valid) == 2
    assert found.removed == [("removed: same as one held apart", 2)]
    kept = kind(train, valid, overlap="keep", **options)
    assert len(kept.split.train) == len(SENTENCES) and not kept.removed


@pytest.mark.parametrize("kind", [instructions, texts])
def test_a_validation_file_that_is_the_training_file_is_refused(tmp_path, kind):
    path = write(tmp_path / f"same{ENDINGS[kind]}", kind, SENTENCES)
    with pytest.raises(DataError, match=r"^data: nothing to train on is left: .*data\.overlap"):
        kind(path, path)
