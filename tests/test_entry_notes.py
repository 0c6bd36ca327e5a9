"""Notes of entries, msgctxt and comments of developers, as context: in every format that has them, in training and in
translation."""

import json
import os
import pickle
from pathlib import Path

import pytest
import tiny_run
from test_context import MARKED, SEP, ids

from dragoman import cli
from dragoman.checkpoint import run_config
from dragoman.config import dump_yaml, merge, to_dict
from dragoman.decode.documents.document import translate_document
from dragoman.decode.request import Request
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.translation import Candidate, Translation
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.text.context import NO_CONTEXT, EntryNotes
from dragoman.text.corpus import source_rows
from dragoman.text.filled.opening import document_of, open_document
from dragoman.text.formats.pairs import Keyed, guess_source
from dragoman.text.lines import AnnotatedPair, Pair, Sourced
from dragoman.train.run import start

XLIFF_1 = """<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file source-language="en"
target-language="de" datatype="plaintext" original="a"><body><trans-unit id="1"><source>Open</source>
<target>Öffnen</target><note from="developer">a verb</note><note annotates="target">checked</note></trans-unit>
</body></file></xliff>"""
XLIFF_2 = """<xliff version="2.0" srcLang="en" trgLang="de" xmlns="urn:oasis:names:tc:xliff:document:2.0"><file id="f">
<unit id="1"><notes><note>a verb</note><note appliesTo="target">checked</note></notes><segment state="final">
<source>Open</source><target>Öffnen</target></segment></unit></file></xliff>"""
TMX = """<tmx version="1.4"><header srclang="en"/><body><tu><note>a verb</note><tuv xml:lang="en"><seg>Open</seg></tuv>
<tuv xml:lang="de"><seg>Öffnen</seg></tuv></tu></body></tmx>"""
QT = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS><TS version="2.1" language="de"><context><name>Main</name><message><source>Open</source>
<comment>menu</comment><extracomment>a verb</extracomment><translation>Öffnen</translation></message></context></TS>"""
CATALOG = json.dumps(
    {
        "sourceLanguage": "en",
        "strings": {
            "Open": {
                "comment": "a verb",
                "localizations": {"de": {"stringUnit": {"state": "translated", "value": "Öffnen"}}},
            }
        },
        "version": "1.0",
    }
)
PO = """#. a verb
#. in the menu
#: a.c:1
#, c-format
msgctxt "menu"
msgid "Open"
msgstr "Öffnen"

#. of a door
msgid "Door"
msgstr ""
"""
ANDROID = """<resources>
    <!-- Copyright: nobody -->

    <!-- a verb -->
    <string name="open">Open</string>
    <string name="door">Door</string>
</resources>"""
RESX = """<root><data name="a"><value>Open</value><comment>a verb</comment></data>
<data name="b"><value>Door</value></data></root>"""
STRINGS = """/* Made by hand */

/* a
   verb */
"open" = "Open";

/* No comment provided by engineer. */
"door" = "Door";
"""
PROPERTIES = "# licence\n\n# a\n! verb\nopen = Open\ndoor = Door\n"
YAML = "en:\n  # a verb\n  open: Open\n  door: Door\n"
FLUENT = "### file\n\n# a verb\nopen = Open\ndoor = Door\n"
ARB = json.dumps({"open": "Open", "@open": {"description": "a verb"}, "door": "Door"})
CHROME = json.dumps({"open": {"message": "Open", "description": "a verb"}, "door": {"message": "Door"}})


@pytest.mark.parametrize(
    ("name", "content", "notes"),
    [
        ("a.po", PO, ("menu", "a verb in the menu")),
        ("a.xlf", XLIFF_1, ("a verb",)),
        ("b.xlf", XLIFF_2, ("a verb",)),
        ("a.tmx", TMX, ("a verb",)),
        ("a.ts", QT, ("menu", "a verb")),
        ("a.xcstrings", CATALOG, ("a verb",)),
        ("a.xml", ANDROID, ("a verb",)),
        ("a.resx", RESX, ("a verb",)),
        ("a.strings", STRINGS, ("a verb",)),
        ("a.properties", PROPERTIES, ("a verb",)),
        ("a.yml", YAML, ("a verb",)),
        ("a.ftl", FLUENT, ("a verb",)),
        ("a.arb", ARB, ("a verb",)),
        ("messages.json", CHROME, ("a verb",)),
        ("a.csv", "source,target,comment,context\nOpen,,a verb,menu\nDoor,,,\n", ("menu", "a verb")),
    ],
)
def test_the_notes_of_an_entry_are_its_context_and_the_comments_of_developers(tmp_path, name, content, notes):
    (tmp_path / name).write_text(content, encoding="utf-8")
    document = open_document(tmp_path / name, target="de")
    assert document.slots[0].text == "Open" and document.slots[0].notes == notes
    others = [slot.notes for slot in document.slots[1:]]
    assert others in ([], [()], [("of a door",)])


@pytest.mark.parametrize(
    ("name", "content", "notes"),
    [
        ("a.po", PO, ("menu", "a verb in the menu")),
        ("a.xlf", XLIFF_1, ("a verb",)),
        ("b.xlf", XLIFF_2, ("a verb",)),
        ("a.tmx", TMX, ("a verb",)),
        ("a.csv", "source,target,Comment,msgctxt\nOpen,Öffnen,a verb,menu\n", ("menu", "a verb")),
        ("a.jsonl", '{"source": "Open", "target": "Öffnen", "note": "a verb", "context": 3}\n', ("a verb",)),
    ],
)
def test_pairs_of_files_with_both_languages_have_their_notes(tmp_path, name, content, notes):
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = list(EntryNotes().in_pairs(guess_source(str(tmp_path / name))))
    assert found == [(Pair("Open", "Öffnen"), notes)]
    assert next(NO_CONTEXT.in_pairs(guess_source(str(tmp_path / name)))) == (Pair("Open", "Öffnen"), ())


@pytest.mark.parametrize(
    ("ending", "content"), [("xml", ANDROID), ("resx", RESX), ("ftl", FLUENT), ("arb", ARB), ("properties", PROPERTIES)]
)
def test_pairs_of_files_of_one_language_have_the_notes_of_the_source(tmp_path, ending, content):
    (tmp_path / f"en.{ending}").write_text(content)
    (tmp_path / f"de.{ending}").write_text(content.replace("Open", "Auf").replace("a verb", "ein Verb"))
    source = Keyed(root=str(tmp_path), source=f"en.{ending}", target=f"de.{ending}")
    assert list(EntryNotes().in_pairs(source)) == [(Pair("Open", "Auf"), ("a verb",)), (Pair("Door", "Door"), ())]


def test_a_compiled_catalogue_has_the_contexts(tmp_path):
    polib = pytest.importorskip("polib")
    (tmp_path / "a.po").write_text('msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n' + PO)
    polib.pofile(str(tmp_path / "a.po")).save_as_mofile(str(tmp_path / "a.mo"))
    assert list(EntryNotes().in_pairs(guess_source(str(tmp_path / "a.mo")))) == [(Pair("Open", "Öffnen"), ("menu",))]


@pytest.mark.parametrize(
    ("notes", "read"),
    [
        ((), ()),
        (("menu", "", " \n"), ("menu",)),
        (("one  two\nthr",), ("one two thr",)),
        (("abcde", "one two three"), ("abcde", "one two")),
        (("x" * 40, "menu"), ("menu",)),
        (("one two three four",), ("one two",)),
        (("one two thr", "more"), ("one two thr",)),
    ],
)
def test_notes_are_shortened_after_a_word(notes, read):
    assert EntryNotes(characters=12).select(notes) == read


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("en.arb", r'{"a": "Open", "@a": {"description": "menu\ud800"}}'),
        ("a.xcstrings", r'{"sourceLanguage": "en", "strings": {"Open": {"comment": "menu\udfff"}}, "version": "1.0"}'),
        ("messages.json", r'{"a": {"message": "Open", "description": "\u0000menu"}}'),
    ],
)
def test_what_json_can_spell_in_a_note_and_no_text_can_hold_is_left_out(tmp_path, name, content):
    document = document_of(content.encode, name, kind=Path(name).suffix, source="en", target="de")
    assert list(EntryNotes().of_entries(document.slots)) == [("menu",)]
    (tmp_path / "a.jsonl").write_text(r'{"source": "Open", "target": "NEPO", "comment": "menu\ud800"}')
    assert [notes for _, notes in EntryNotes().in_pairs(guess_source(str(tmp_path / "a.jsonl")))] == [("menu",)]


def test_the_notes_stand_before_the_text_each_with_a_separator():
    (row,) = source_rows(MARKED, [Sourced("Open", "", "", "bt", ("menu", "a verb"))], 100)
    assert row[1:-1] == [*ids("menu"), SEP, *ids("a verb"), SEP, *ids("Open")]


def test_a_pair_with_notes_is_a_pair():
    pair = AnnotatedPair.of("a", "b", ("", "note"))
    assert pair == Pair("a", "b") and isinstance(pair, AnnotatedPair) and pair.notes == ("note",)
    assert pickle.loads(pickle.dumps(pair)).notes == ("note",)
    assert type(AnnotatedPair.of("a", "b", ("", " "))) is Pair


def test_a_document_is_translated_with_the_notes_of_its_entries(tmp_path):
    (tmp_path / "a.xml").write_text(ANDROID.replace("Open", "Open it.\\nClose it."))
    asked = []

    def ask(questions, _):
        asked.extend(one if isinstance(one, Request) else Request(one) for one in questions)
        candidates = [
            Candidate(request.text, 0.0, 0.0, (), (), truncated=False) for request in asked[-len(questions) :]
        ]
        return [Translation(1, one.text, (one,)) for one in candidates]

    for context, read in ((EntryNotes(), ("a verb",)), (EntryNotes(characters=3), ("a",)), (NO_CONTEXT, ())):
        asked.clear()
        translate_document(open_document(tmp_path / "a.xml"), ask, context=context)
        found = {request.text: request.context for request in asked}
        assert found["Open it."] == found["Close it."] == read and found["Door"] == ()


# ---- a run whose answers depend on the notes -----------------------------------------------------------


def rows(words):
    return "".join(f"it,{word.upper()},{word}\n{word},{word.upper()},\n" for word in words)


NOUNS = ["dog", "cat", "cow", "hen", "fox", "owl"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notes")
    (folder / "train.csv").write_text("source,target,comment\n" + rows(NOUNS * 20))
    (folder / "test.csv").write_text("source,target,comment\n" + rows(NOUNS))
    table = {"kind": "table", "path": str(folder / "test.csv"), "source": "source", "target": "target"}
    block = {"mixer": {"heads": 4}, "mlp": {"hidden": 64}, "dropout": 0.0}
    towers = {
        tower: {"pattern": [merge(one, block) for one in tiny_run.MODEL[tower]["pattern"]]}
        for tower in ("encoder", "decoder")
    }
    plain = merge(
        to_dict(tiny_run.config(folder / "train.csv")),
        {
            "data": {"context": "entry_notes", "cleaning": {"copies": "keep", "duplicates": "keep"}}
            | {"train": [merge(table, {"path": str(folder / "train.csv")})]}
            | {"valid": table, "test": table, "overlap": "keep", "hold_out": {"valid": 0, "test": 0}},
            "tokenizer": {"kind": "words", "vocab": 259 + 13},
            "model": merge(tiny_run.MODEL, {"dim": 32, "dropout": 0.0} | towers),
            "task": {"kind": "translation", "label_smoothing": 0.0},
            "train": {"budget": {"kind": "steps", "steps": 70}, "validate_every": 70, "save_every": 70}
            | {"schedule": {"kind": "constant", "peak": 1e-2}, "batch_tokens": 200, "accumulate": 1, "average": None},
        },
    )
    fsync, os.fsync = os.fsync, lambda handle: None
    try:
        list(start(tiny_run.recipe.load(plain), folder / "run").events())
    finally:
        os.fsync = fsync
    return folder / "run"


def test_what_the_notes_tell_is_learnt_and_used_in_every_format(run, tmp_path, capsys):
    (tmp_path / "a.po").write_text("".join(f'msgctxt "{n}"\nmsgid "it"\nmsgstr ""\n\n' for n in NOUNS))
    (tmp_path / "a.xml").write_text(
        "<resources>" + "".join(f'<!-- {n} -->\n<string name="{n}">it</string>\n' for n in NOUNS) + "</resources>"
    )
    for name in ("a.po", "a.xml"):
        command = ["translate", str(run), str(tmp_path / name), "-o", str(tmp_path / f"out.{name}"), "--beam", "1"]
        assert cli.main([*command, "--to", "de"]) == 0
        written = (tmp_path / f"out.{name}").read_text()
        assert [written.index(n.upper()) for n in NOUNS] == sorted(written.index(n.upper()) for n in NOUNS)
        assert "were not read" not in capsys.readouterr().err


def test_answers_are_the_same_alone_and_in_a_batch(run):
    translator = Translator.load(run, precision="float32")
    requests = [Request("it", context=(n,)) for n in NOUNS] + [Request("dog"), Request("it", context=("", " owl "))]
    together = translator.translate(requests, search=Greedy())
    alone = [translator.translate([request], search=Greedy())[0] for request in requests]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.text for one in together] == [*(n.upper() for n in NOUNS), "DOG", "OWL"]


def test_a_test_set_is_read_with_its_notes(run, capsys):
    assert cli.main(["evaluate", str(run), "--beam", "1", "--metric", "exact_match"]) == 0
    scores = json.loads((run / "evaluations" / "test" / "scores.json").read_text())["scores"]
    assert scores["exact_match"]["value"] == 100.0
    assert cli.main(["evaluate", str(run), "--beam", "1", "--metric", "exact_match", "--context", "0"]) == 0
    scores = json.loads((run / "evaluations" / "test" / "scores.json").read_text())["scores"]
    assert scores["exact_match"]["value"] < 100.0


def test_sentences_are_refused_and_zero_reads_none(run, tmp_path, capsys):
    with pytest.raises(ConfigError, match="2 sentences asked for, but this run was trained with the notes of entries"):
        Translator.load(run, context=2)
    assert Translator.load(run, context=0).context == EntryNotes(characters=0)
    assert run_config(run)["data"]["context"]["kind"] == "entry_notes"


def test_a_run_that_reads_no_notes_says_so(run, tmp_path, capsys):
    (tmp_path / "a.po").write_text('msgctxt "dog"\nmsgid "it"\nmsgstr ""\n\nmsgid "cat"\nmsgstr ""\n')
    command = ["translate", str(run), str(tmp_path / "a.po"), "-o", str(tmp_path / "b.po"), "--beam", "1"]
    assert cli.main([*command, "--context", "0"]) == 0
    said = capsys.readouterr().err
    assert "dragoman: 1 entries have a context or comments, which were not read: a run reads them if it was" in said


def test_training_text_without_notes_is_refused_before_it_is_learnt(tmp_path, capsys):
    plain = to_dict(tiny_run.config(tiny_run.write_pairs(tmp_path / "p.tsv", 60)))
    plain["data"]["context"] = "entry_notes"
    (tmp_path / "run.yaml").write_text(dump_yaml(plain))
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--run", str(tmp_path / "new")]) == 2
    assert "dragoman: data.context: no pair has notes" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
