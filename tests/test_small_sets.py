"""Small sets of every kind begin to train: fewer examples are held out than asked for, and a line says so."""

import json

import pytest

from dragoman.errors import DataError
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.formats.documents import Drawn, Texts
from dragoman.text.formats.instructions import Instructions
from dragoman.text.formats.labelled import LabelledLines, LabelledTexts
from dragoman.text.formats.pairs import Table
from dragoman.text.formats.questions import QuestionLines, Questions
from dragoman.text.formats.tagged import TaggedColumns, TaggedTexts

WORDS = ["apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jungle", "kettle"]


def sentences(count):
    return [f"{WORDS[i % 11]} {WORDS[(i // 11 + 3 * i) % 11]} {'xyzuvw'[i % 6] * (i % 7 + 1)}" for i in range(count)]


@pytest.mark.parametrize("count", [6, 12, 40])
def test_few_labelled_texts_are_split_and_every_label_is_left_to_learn(count, tmp_path):
    rows = [{"text": text, "label": "good" if i else "rare"} for i, text in enumerate(sentences(count))]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = LabelledTexts(train=(LabelledLines(path=str(tmp_path / "l.jsonl")),)).split()
    assert {one.label for one in found.split.train} == {"good", "rare"} and found.split.valid and found.split.test
    assert "500 for test" in found.note and f"data.hold_out.valid={len(found.split.valid)}" in found.note


def test_few_tagged_sentences_are_split(tmp_path):
    blocks = ["\n".join(f"{word} {'NOUN' if n else 'X'}" for n, word in enumerate(s.split())) for s in sentences(20)]
    (tmp_path / "t.conll").write_text("\n\n".join(blocks) + "\n")
    found = TaggedTexts(train=(TaggedColumns(path=str(tmp_path / "t.conll")),)).split()
    assert found.split.train and found.split.valid and found.split.test and "held out instead" in found.note


def test_few_questions_are_split_by_their_contexts(tmp_path):
    rows = [
        {"context": text, "question": "which?", "answers": [{"text": text.split()[0], "start": 0}]}
        for text in sentences(15)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = Questions(train=(QuestionLines(path=str(tmp_path / "q.jsonl")),)).split()
    assert found.split.train and found.split.valid and "of 15 contexts" in found.note


def test_few_instructions_and_documents_are_split(tmp_path):
    rows = "".join(f"{text}\t{text[::-1]}\n" for text in sentences(9))
    (tmp_path / "p.tsv").write_text(rows)
    found = Instructions(train=(Table(path=str(tmp_path / "p.tsv")),)).split()
    split = found.split
    assert split.train and split.valid and f"data.hold_out.valid={len(split.valid)}" in found.note
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in sentences(9)))
    drawn = Texts(files=(str(tmp_path / "d.jsonl"),), hold_out=Drawn()).split()
    split = drawn.split
    assert split.train and split.valid and f"data.hold_out.documents={len(split.valid)}" in drawn.note


def test_where_there_is_enough_all_is_held_out_and_nothing_said(tmp_path):
    rows = "".join(f"{text}\t{text[::-1]}\n" for text in sentences(40))
    (tmp_path / "p.tsv").write_text(rows)
    source = Table(path=str(tmp_path / "p.tsv"))
    found = Instructions(train=(source,), hold_out=HoldOut(test=0, valid=4, near=None)).split()
    assert len(found.split.valid) == 4 and not found.note


@pytest.mark.parametrize("name", ["a.json", "b.docx", "c.pdf", "d.csv", "e.po", "f.srt", "g.parquet.gz", "h.ipynb"])
def test_a_language_model_learns_from_no_file_that_is_no_text(name, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=rf"{name}: .*expected text"):
        Texts(files=(str(tmp_path / name),)).split()


@pytest.mark.parametrize("name", ["a.txt", "b.md", "c.py", "d", "e.tex", "f.html", "g.log", "h.en"])
def test_a_language_model_learns_from_prose_markup_and_code(name, tmp_path):
    (tmp_path / name).write_text("some text " * 20)
    assert Texts(files=(str(tmp_path / name),)).split().split.train
