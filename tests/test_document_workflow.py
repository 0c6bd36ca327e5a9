"""Folders of documents are translated as a team works: what is missing, with a memory first, a report, and checks."""

import gzip
import itertools
import json
import shlex

import pytest
from document_samples import opened
from hypothesis import given
from hypothesis import strategies as st
from test_document_formats import BROKEN
from test_documents import Shouting
from test_office_documents import run, word

from dragoman.cli import main
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError, DataError
from dragoman.text.checks import CHECKS, Translated, find_problems
from dragoman.text.existing import existing_translations
from dragoman.text.formats.localized_paths import language_in, localized_path, neutral_path
from dragoman.text.formats.pairs import Keyed, read_pairs
from dragoman.text.formats.several import guess_sources
from dragoman.text.lines import Pair
from dragoman.text.memory import TranslationMemory

HEADER = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """A run whose translations are their sources in capitals; the list of what it was asked."""
    run = Shouting()
    monkeypatch.setattr(Translator, "load", lambda *_, **__: run)
    return run.asked


@pytest.fixture
def no_model(monkeypatch):
    def load(*_, **__):
        raise CheckpointError("a model was loaded")

    monkeypatch.setattr(Translator, "load", load)


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


TREE = {
    "app/en/a.json": '{"x": "one", "y": "two"}\n',
    "app/en/deep/b.yml": "en:\n  z: three\n",
    "app/en/notes.txt": "no document\n",
    "app/en/.hidden/c.json": '{"x": "hidden"}\n',
    "app/en/layout.xml": "<layout/>\n",
}


# ---- folders ----------------------------------------------------------------------------------------


def test_a_folder_is_translated_into_another_and_only_what_is_missing(here, asked, capsys):
    write(here, TREE)
    write(here, {"app/de/a.json": '{"y": "zwei", "x": "eins"}\n'})
    arguments = ["translate", "run", "app/en", "-o", "app/de", "--to", "de"]
    assert main(arguments) == 0 and asked == ["three"]
    assert (here / "app/de/a.json").read_text() == '{"y": "zwei", "x": "eins"}\n'  # nothing missing: to the byte
    assert (here / "app/de/deep/b.yml").read_text() == "de:\n  z: THREE\n"
    assert sorted(path.name for path in here.joinpath("app/de").rglob("*") if path.is_file()) == ["a.json", "b.yml"]
    write(here, {"app/de/a.json": '{"y": "zwei"}'})
    assert main(arguments) == 0
    assert (here / "app/de/a.json").read_text() == '{"x": "ONE", "y": "zwei"}\n'
    assert main([*arguments, "--redo"]) == 0 and main([*arguments, "--redo", "all"]) == 0
    assert (here / "app/de/a.json").read_text() == '{"x": "ONE", "y": "TWO"}\n'


AT_THE_TOP = {
    "json": '{{"{0}": {{"menu": {{"open": "{1}", "close": "{2}"}}}}}}\n',
    "yml": "{0}:\n  menu:\n    open: {1}\n    close: {2}\n",
}
"""Files whose only name at the top is that of their language, as Rails has them."""


@pytest.mark.parametrize("kind", AT_THE_TOP)
@pytest.mark.parametrize("language", ["de", "pt-BR"])
def test_what_is_there_stays_in_files_with_the_language_at_the_top(here, asked, capsys, kind, language):
    text = AT_THE_TOP[kind]
    write(here, {f"l/en.{kind}": text.format("en", "Open", "Close"), f"l/fr.{kind}": text.format("fr", "Ouvrir", "")})
    done = text.format(language, "by a person", "by another")
    for path in (f"l/{language}.{kind}", f"out/{language}.{kind}"):
        write(here, {path: done})
    assert main(["translate", "run", f"l/en.{kind}", "-o", f"l/{language}.{kind}", "--to", language]) == 0
    assert main(["translate", "run", "l", "-o", "out", "--from", "en", "--to", language]) == 0
    assert (here / f"l/{language}.{kind}").read_text() == (here / f"out/{language}.{kind}").read_text() == done
    assert not asked and "are left out" not in capsys.readouterr().err
    write(here, {f"l/{language}.{kind}": text.format(language, "by a person", '""' * (kind == "yml"))})
    assert main(["translate", "run", f"l/en.{kind}", "-o", f"l/{language}.{kind}"]) == 0  # the name tells the language
    assert (here / f"l/{language}.{kind}").read_text() == text.format(language, "by a person", "CLOSE")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("yml", "{0}:\n  order: [ {1} ]\n  precision: {2}\n  e:\n  f: &x {2}\n  open: {3}\n  close: {4}\n"),
        ("json", '{{"{0}": {{"precision": {2}, "s": [{2}, true], "open": "{3}", "close": "{4}"}}}}\n'),
    ],
)
def test_what_is_there_stays_of_values_that_are_no_text(here, asked, kind, text):
    write(here, {f"en.{kind}": text.format("en", ":month, :day", 2, "Open", "Close")})
    write(here, {f"de.{kind}": text.format("de", ":day, :month", 3.5, "by hand", '""' * (kind == "yml"))})
    assert main(["translate", "run", f"en.{kind}", "-o", f"de.{kind}"]) == 0 and asked == ["Close"]
    assert (here / f"de.{kind}").read_text() == text.format("de", ":day, :month", 3.5, "by hand", "CLOSE")


@pytest.mark.parametrize("kind", AT_THE_TOP)
def test_a_language_at_the_top_is_no_part_of_the_keys_for_checks_and_training(here, capsys, kind):
    text = AT_THE_TOP[kind]
    write(here, {f"l/en.{kind}": text.format("en", "Open", "Close %s")})
    write(here, {f"l/de.{kind}": text.format("de", "Auf", "Zu"), f"l/x.{kind}": text.format("x", "a", "b")})
    pair = f"l/en.{kind},l/de.{kind}"
    assert pairs_of(pair) == pairs_of(f"l/{{en,de}}.{kind}") == [("Open", "Auf"), ("Close %s", "Zu")]
    assert main(["check", pair]) == 1 and "2 translations checked, 1 finding" in capsys.readouterr().err
    assert main(["check", f"l/en.{kind},l/x.{kind}"]) == 2
    assert "none of its entries is in l/en" in capsys.readouterr().err


def test_entries_that_the_source_has_no_longer_are_named(here, asked, capsys):
    write(here, {"en.json": '{"a": "x", "b": "y"}', "de.json": '{"a": "X1", "gone": "Z"}'})
    assert main(["translate", "run", "en.json", "-o", "de.json"]) == 0
    assert "de.json: 1 of its entries are not in en.json and are left out: gone" in capsys.readouterr().err
    assert json.loads((here / "de.json").read_text()) == {"a": "X1", "b": "Y"}


def test_a_translated_page_with_other_parts_is_not_overwritten_unless_all_is_redone(here, asked, capsys):
    write(here, {"en.html": "<p>a</p><p>b</p>", "de.html": "<p>by hand</p>"})
    assert main(["translate", "run", "en.html", "-o", "de.html"]) == 2
    assert "de.html: has other parts than en.html" in capsys.readouterr().err
    assert (here / "de.html").read_text() == "<p>by hand</p>" and not asked
    assert main(["translate", "run", "en.html", "-o", "de.html", "--redo"]) == 0
    assert (here / "de.html").read_text() == "<p>A</p><p>B</p>"
    write(here, {"en.html": "<p>a</p><p>c</p>"})
    assert main(["translate", "run", "en.html", "-o", "de.html"]) == 0  # the same parts: what is there stays
    assert (here / "de.html").read_text() == "<p>A</p><p>B</p>"


def test_markup_of_an_existing_translation_stays_markup(here, asked):
    write(here, {"en.xml": "<resources><string name='a'>x <b>y</b></string><string name='b'>z</string></resources>"})
    write(here, {"de.xml": "<resources><string name='a'><i>Y</i> X</string></resources>"})
    assert main(["translate", "run", "en.xml", "-o", "de.xml"]) == 0
    expected = "<resources><string name='a'><i>Y</i> X</string><string name='b'>Z</string></resources>"
    assert (here / "de.xml").read_text() == expected


def test_plural_forms_that_a_translator_wrote_are_kept(here, asked):
    write(
        here, {"en.json": '{"a_one": "x", "a_other": "xs"}', "pl.json": '{"a_one": "p", "a_few": "q", "a_other": "r"}'}
    )
    assert main(["translate", "run", "en.json", "-o", "pl.json", "--to", "pl"]) == 0
    expected = {"a_one": "p", "a_few": "q", "a_many": "XS", "a_other": "r"}
    assert json.loads((here / "pl.json").read_text()) == expected


def test_the_name_of_the_output_tells_the_language_of_its_plurals(here, asked):
    write(
        here, {"en.json": '{"a_one": "x", "a_other": "xs"}', "pl.json": '{"a_one": "p", "a_few": "q", "a_other": "r"}'}
    )
    assert main(["translate", "run", "en.json", "-o", "pl.json"]) == 0
    assert json.loads((here / "pl.json").read_text()) == {"a_one": "p", "a_few": "q", "a_many": "XS", "a_other": "r"}


def test_a_dry_run_counts_and_neither_loads_nor_writes(here, no_model, capsys):
    write(here, TREE)
    write(here, {"app/de/a.json": '{"x": "eins"}'})
    assert main(["translate", "run", "app/en", "-o", "app/de", "--to", "de", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "app/en/a.json -> app/de/a.json: 1 of 2 (1 words)" in out
    assert "app/en/deep/b.yml -> app/de/deep/b.yml: 1 of 1 (1 words)" in out
    assert "2 to translate in 2 files; nothing was written" in out
    assert not (here / "app/de/deep").exists()


def test_a_compressed_document_of_both_languages_is_filled_in_its_folder_as_others_are(here, asked):
    write(here, {"locale/a.po": PO})
    (here / "locale/b.po.gz").write_bytes(gzip.compress(PO.encode()))
    assert main(["translate", "run", "locale", "-o", "locale", "--to", "pl"]) == 0
    assert gzip.decompress((here / "locale/b.po.gz").read_bytes()) == (here / "locale/a.po").read_bytes()
    assert 'msgstr "C"' in (here / "locale/a.po").read_text()


def test_a_broken_file_in_a_folder_is_listed_and_the_rest_is_translated(here, asked, capsys):
    write(here, TREE)
    write(here, {"app/en/bad.json": '{"x": '})
    assert main(["translate", "run", "app/en", "-o", "out", "--to", "de"]) == 1
    assert "app/en/bad.json:1: not JSON" in capsys.readouterr().err
    assert (here / "out/a.json").exists() and not (here / "out/bad.json").exists()
    assert main(["translate", "run", "app/en/bad.json", "app/en/a.json", "-o", "two"]) == 2
    assert not (here / "two/a.json").exists()
    for name in ("a.json", "deep/b.yml"):
        (here / "app/en" / name).unlink()
    assert main(["translate", "run", "app/en", "-o", "three", "--to", "de"]) == 1 and not (here / "three").exists()


def test_the_name_of_a_folder_tells_the_source_language(here, asked):
    write(here, {"l/fr/a.yml": "fr:\n  a: un\n", "l/fr/b_fr.json": '{"a": "deux"}'})
    assert main(["translate", "run", "l/fr", "-o", "l/de", "--to", "de"]) == 0
    assert (here / "l/de/a.yml").read_text() == "de:\n  a: UN\n" and (here / "l/de/b_de.json").exists()


def test_a_pattern_names_documents_too(here, asked):
    write(here, TREE)
    assert main(["translate", "run", "app/**/*.yml", "-o", "out", "--from", "en", "--to", "de"]) == 0
    assert (here / "out/de/deep/b.yml").read_text() == "de:\n  z: THREE\n"


def test_files_beside_their_sources_get_the_names_of_their_language(here, asked):
    xml = "<resources><string name='a'>x</string></resources>"
    files = {"res/values/strings.xml": xml, "res/values-fr/strings.xml": xml, "res/en.lproj/a.strings": '"a" = "b";'}
    files |= {"res/App.resx": "<root><data name='a'><value>b</value></data></root>", "res/fr.json": '{"a": "f"}'}
    files |= {"res/en.json": '{"a": "b"}', "res/plain.json": '{"a": "b"}', "res/intl_en.arb": '{"a": "b"}'}
    write(here, files)
    before = {path: path.read_text() for path in (here / "res").rglob("*") if path.is_file()}
    assert main(["translate", "run", "res", "-o", "res", "--to", "de"]) == 0
    new = {str(path.relative_to(here)) for path in (here / "res").rglob("*") if path.is_file() and path not in before}
    assert new == {
        f"res/{n}" for n in ("values-de/strings.xml", "de.lproj/a.strings", "App.de.resx", "de.json", "intl_de.arb")
    }
    assert before == {path: path.read_text() for path in before}


@pytest.mark.parametrize(
    ("path", "goal"),
    [
        ("en/app.json", "pt-BR/app.json"),
        ("en_US/app.po", "pt_BR/app.po"),
        ("app_en.arb", "app_pt_BR.arb"),
        ("values/strings.xml", "values-pt-rBR/strings.xml"),
        ("values-en/strings.xml", "values-pt-rBR/strings.xml"),
        ("Base.lproj/a.strings", "pt-BR.lproj/a.strings"),
        ("messages.en.yml", "messages.pt-BR.yml"),
        ("listen.json", "listen.json"),
        ("open/token.md", "open/token.md"),
    ],
)
def test_names_of_a_language_become_those_of_the_other(path, goal):
    assert localized_path(path, "en", "pt-BR") == goal
    assert language_in(goal) in (None, "pt-BR", "pt_BR")


def test_a_name_without_a_language_gets_one():
    assert neutral_path("a/App.resx", "de") == "a/App.de.resx"
    assert neutral_path("a/app.properties", "pt-BR") == "a/app_pt_BR.properties"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["app/en"], "app/en: the translations of a folder need one: name it, as in -o translated"),
        (["app/en", "-o", "app/en/a.json"], "app/en/a.json: is a file: name a folder"),
        (["app", "-o", "x", "--nbest", "2"], "--nbest, --scores"),
        (["empty", "-o", "x"], "empty: no document in it whose name ends in one of: .po"),
        (["app/**/*.po", "-o", "x"], "app/**/*.po: no file matches this pattern"),
        (["app/en/*.txt", "-o", "x"], "app/en/*.txt: no document in it whose name ends in one of: .po"),
        (["text here", "--dry-run"], "--dry-run, --report and --redo are for documents"),
        (["app/en/a.json", "--memory", "none.tmx"], "none.tmx: no such file"),
        (["app/en/a.json", "--redo=some"], "'--redo'"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(here, no_model, capsys, arguments, message):
    write(here, TREE)
    (here / "empty").mkdir()
    assert main(["translate", "run", *arguments]) == 2
    assert message in capsys.readouterr().err and not (here / "x").exists()


@pytest.mark.parametrize("kind", ["docx", "html", "md", "srt", "json", "yml"])
def test_parts_without_names_are_kept_only_if_all_of_them_are_there(kind):
    def file(*texts):
        return {
            "docx": lambda: word(*map(run, texts)),
            "html": lambda: "".join(f"<p>{text}</p>" for text in texts),
            "md": lambda: "\n\n".join(texts),
            "srt": lambda: "".join(f"{i}\n00:0{i}:00,000 --> 00:0{i}:01,000\n{t}.\n\n" for i, t in enumerate(texts, 1)),
            "json": lambda: json.dumps(texts),
            "yml": lambda: "".join(f"- {text}\n" for text in texts),
        }[kind]()

    source = opened(f"a.{kind}", file("New", "Door", "Window"))
    assert existing_translations(source, opened(f"b.{kind}", file("Tür", "Fenster"))) is None
    found = existing_translations(source, opened(f"b.{kind}", file("Neu", "Tür", "Fenster")))
    assert found and [filling.text.rstrip(".") for filling in found.values()] == ["Neu", "Tür", "Fenster"]


def test_names_that_are_numbers_are_names():
    source, there = opened("a.json", '{"404": "Not found", "500": "Broken"}'), opened("b.json", '{"500": "Kaputt"}')
    found = existing_translations(source, there)
    assert found and {number: filling.text for number, filling in found.items()} == {1: "Kaputt"}


def test_entries_by_numbers_pair_by_them_and_parts_of_office_documents_only_together(tmp_path):
    write(tmp_path, {"en.json": '{"404": "Not found", "500": "Broken"}', "de.json": '{"500": "Kaputt"}'})
    (tmp_path / "en.docx").write_bytes(word(run("New"), run("Door")))
    (tmp_path / "de.docx").write_bytes(word(run("Tür")))
    assert list(read_pairs(Keyed(root=str(tmp_path), source="en.json", target="de.json"))) == [Pair("Broken", "Kaputt")]
    with pytest.raises(DataError, match="holds no sentence pairs"):
        list(read_pairs(Keyed(root=str(tmp_path), source="en.docx", target="de.docx")))


# ---- what is redone, and the memory -----------------------------------------------------------------

PO = HEADER + '\n#, fuzzy\nmsgid "a"\nmsgstr "A1"\n\nmsgid "b"\nmsgstr "B1"\n\nmsgid "c"\nmsgstr ""\n'


@pytest.mark.parametrize(
    ("redo", "expected"), [([], "A1 B1 C"), (["--redo", "fuzzy"], "A B1 C"), (["--redo"], "A B C")]
)
def test_what_is_missing_fuzzy_or_all_is_translated(here, asked, redo, expected):
    write(here, {"a.po": PO})
    assert main(["translate", "run", *redo, "a.po", "-o", "b.po"]) == 0
    text = (here / "b.po").read_text()
    assert [line[8:-1] for line in text.splitlines() if line.startswith("msgstr")][1:] == expected.split()


def test_a_memory_is_asked_before_the_model(here, asked, capsys):
    write(here, {"m.tsv": "Delete {name}?\t{name} löschen?\none\teins\n"})
    write(here, {"a.json": '{"a": "Delete {file}?", "b": " one", "c": "two"}'})
    arguments = ["translate", "run", "a.json", "-o", "b.json", "--memory", "m.tsv"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "3 of 3 (4 words), 2 of them from memory" in capsys.readouterr().out
    assert main([*arguments, "--report", "r.html"]) == 0 and asked == ["two"]
    assert json.loads((here / "b.json").read_text()) == {"a": "{file} löschen?", "b": " eins", "c": "TWO"}
    assert "3 translated (2 from memory)" in capsys.readouterr().err
    assert "memory" in (here / "r.html").read_text()


def test_xliff_says_which_translations_are_from_a_memory(here, asked):
    unit = "<trans-unit id='{0}'><source>{0}</source>{1}</trans-unit>"
    units = unit.format("one", "") + unit.format("two", "") + unit.format("three", "<target/>")
    head = '<xliff version="1.2"><file original="a" datatype="x" source-language="en" target-language="de"><body>'
    write(here, {"a.xlf": f"{head}{units}</body></file></xliff>", "m.tsv": "one\teins\nthree\tdrei\n"})
    assert main(["translate", "run", "a.xlf", "-o", "b.xlf", "--memory", "m.tsv"]) == 0
    text = (here / "b.xlf").read_text()
    assert '<target state-qualifier="exact-match">eins</target>' in text and "<target>TWO</target>" in text
    assert '<target state-qualifier="exact-match">drei</target>' in text


def test_a_memory_finds_the_same_text_and_the_same_text_with_other_placeholders():
    memory = TranslationMemory(
        [Pair("a {x} b %s", "%s A {x}"), Pair("c", "C"), Pair("c", "D"), Pair("c", "D"), Pair("", "E")]
    )
    assert memory.find("a {y} b %d") == "%d A {y}" and memory.find("c") == "D" and memory.find("  c\n") == "  D\n"
    assert memory.find("") is None and memory.find("a b") is None and len(memory) == 2
    same = TranslationMemory([Pair("{x} and {x}", "{x} und {x}")])
    assert same.find("{a} and {b}") is None and same.find("{a} and {a}") == "{a} und {a}"


@given(st.lists(st.text("ab{}% s\n", max_size=8), min_size=2, max_size=6))
def test_a_memory_never_fails_and_returns_what_it_has(texts):
    memory = TranslationMemory(Pair(a, b) for a, b in itertools.pairwise(texts))
    for text in texts:
        memory.find(text)
    assert memory.find(texts[0]) is not None or not texts[0].strip() or not texts[1].strip()


def test_the_report_has_doubtful_entries_first_with_links_and_nothing_executed(here, asked):
    write(here, {"en.json": '{"a": "good", "b": "doubt <script>", "c": "kept"}', "de.json": '{"c": "da"}'})
    assert main(["translate", "run", "en.json", "-o", "de.json", "--flag-below", "0.5", "--report", "r.html"]) == 0
    page = (here / "r.html").read_text()
    assert page.index("doubt") < page.index("good") and "class=doubtful" in page
    assert "<a href='en.json#L1'>en.json:1</a>" in page and "<script>" not in page and "http" not in page


# ---- checks -----------------------------------------------------------------------------------------

FOUND = [
    ("Hello {name}", "Hallo", "placeholders"),
    ("a %s", "b %d", "placeholders"),
    ("3 files", "4 Dateien", "numbers"),
    ("Open.", "Öffnen", "punctuation"),
    ("Really?", "Wirklich", "punctuation"),
    (" a", "b", "white space"),
    ("a\nb", "c", "white space"),
    ("&File", "Datei", "access key"),
    ("a <b>b</b>", "c <b>d</b", "placeholders"),
]
CLEAN = [
    ("Hello {name}!", "¡Hola {name}!"),
    ("Open.", "開く。"),
    ("Really?", "本当ですか？"),  # noqa: RUF001
    ("Wait…", "Warten..."),
    ("1,234.5 files", "1.234,5 Dateien"),
    ("&File", "&Datei"),
    ("&File", "文件(&F)"),
    ("<b>a</b> &amp; b", "<b>x</b> &amp; y"),
    ("Note:", "Hinweis :"),
]


@pytest.mark.parametrize(("source", "translation", "check"), FOUND)
def test_what_is_wrong_is_found_by_its_check(source, translation, check):
    assert check in [finding.check for finding in find_problems(Translated("a:1", source, translation))]


@pytest.mark.parametrize(("source", "translation"), CLEAN)
def test_what_is_right_is_not_reported(source, translation):
    assert not list(find_problems(Translated("a:1", source, translation)))


def test_the_help_names_every_check_as_it_is_written_on_a_command_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["check", "--help"]) == 0
    told = next(line for line in capsys.readouterr().out.splitlines() if "--only" in line and "alone:" in line)
    named = told.partition("alone: ")[2].partition(";")[0].split(", ")
    assert [shlex.split(name) for name in named] == [[name] for name in CHECKS]


def test_length_and_markup_are_checked():
    (found,) = find_problems(Translated("a:1", "ab", "abcdef", limit=5))
    assert found.check == "length" and "6 characters, 5 are allowed" in found.message
    assert CHECKS["markup"](Translated("a:1", "<a>b</a>", "<a>b & <</a>")) is not None


@given(st.text(max_size=12), st.text(max_size=12))
def test_checks_never_fail_and_a_copy_of_the_source_passes(source, translation):
    list(find_problems(Translated("a:1", source, translation)))
    assert not list(find_problems(Translated("a:1", source, source)))


def test_check_names_file_and_line_and_exits_with_1(here, capsys):
    text = HEADER + '\n#, max-length:3\nmsgid "a {x}"\nmsgstr "b c d"\n\nmsgid "good"\nmsgstr "gut"\n'
    write(here, {"a.po": text, "en.json": '{"a": "b.", "c": "d"}', "de.json": '{"a": "e", "c": "f"}'})
    write(here, {"en.md": "a\n\nb\n", "de.md": "a\n", "folder/a.po": text})
    write(here, {"good.tsv": "a\tb\n", "bad.tsv": "a\tb\na 1\tb\n"})
    assert main(["check", "a.po"]) == 1
    out, err = capsys.readouterr()
    assert "a.po:5: placeholders: without {x}: a {x} -> b c d" in out and "a.po:5: length:" in out
    assert "2 translations checked, 2 findings" in err
    assert main(["check", "en.json,de.json", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["check"] == "punctuation"
    assert main(["check", "good.tsv"]) == 0 and main(["check", "a.po", "--only", "numbers"]) == 0
    assert main(["check", "bad.tsv"]) == 1 and "bad.tsv: pair 2: numbers" in capsys.readouterr().out
    assert main(["check", "a.po", "--skip", "placeholders", "--skip", "length"]) == 0
    for arguments, message in (
        (["en.json"], "en.json: holds one language"),
        (["none.po"], "none.po: no such file"),
        (["folder"], "folder: is a folder: name the files in it"),
        (["en.md,de.md"], "de.md: has other parts than en.md"),
        (["a.po", "--only", "spelling"], "spelling"),
        (["a.png"], "a.png"),
    ):
        capsys.readouterr()
        assert main(["check", *arguments]) == 2 and message in capsys.readouterr().err


# ---- as training text -------------------------------------------------------------------------------


def pairs_of(path):
    return [tuple(pair) for source in guess_sources(path) for pair in read_pairs(source)]


FILES = {
    "json": '{{"a": "{0}", "b": {{"c": "{1}"}}}}',
    "arb": '{{"@@locale": "x", "a": "{0}", "n": "{{n, plural, other {{{1}}}}}"}}',
    "xml": "<resources><string name='a'>{0}</string><string name='b'>{1}</string></resources>",
    "strings": '"a" = "{0}"; "b" = "{1}";',
    "properties": "a={0}\nb={1}\n",
    "resx": "<root><data name='a'><value>{0}</value></data><data name='b'><value>{1}</value></data></root>",
    "yml": "a: {0}\nb: {1}\n",
    "ftl": "a = {0}\nb = {1}\n",
    "srt": "1\n00:00:01,000 --> 00:00:02,000\n{0}.\n\n2\n00:00:03,000 --> 00:00:04,000\n{1}.\n",
    "html": "<p>{0}</p><p>{1}</p>",
    "md": "# {0}\n\n{1}\n",
}


@pytest.mark.parametrize("kind", FILES)
def test_files_by_language_are_training_text(here, kind):
    text = FILES[kind]
    write(here, {f"l/en/x.{kind}": text.format("One", "Two"), f"l/de/x.{kind}": text.format("Eins", "Zwei")})
    end = "." * (kind == "srt")
    expected = [(f"One{end}", f"Eins{end}"), (f"Two{end}", f"Zwei{end}")]
    for path in (f"l/{{en,de}}/**/*.{kind}", f"l/{{source,target=de}}/*.{kind}", f"l/en/x.{kind},l/de/x.{kind}"):
        assert pairs_of(path) == expected


def test_catalogues_of_a_target_language_are_training_text(here):
    text = HEADER + '\nmsgid "a"\nmsgstr "{}"\n'
    write(here, {"l/de/deep/a.po": text.format("A"), "l/fr/a.po": text.format("F")})
    assert pairs_of("l/{source,target=de}/**/*.po") == [("a", "A")]


def test_descriptions_in_the_messages_of_an_extension_are_no_training_text(here):
    text = '{{"a": {{"message": "{}", "description": "Shown", "placeholders": {{"x": {{"content": "$1"}}}}}}}}'
    write(here, {"en/messages.json": text.format("One"), "de/messages.json": text.format("Eins")})
    assert pairs_of("{en,de}/messages.json") == [("One", "Eins")]


WITH_DOTS = {"json": '{{"a.b": "{0}", "a": {{"b": "{1}"}}, "c": "{2}"}}', "yml": 'a.b: {0}\na: {{b: {1}}}\nc: "{2}"\n'}


@pytest.mark.parametrize("kind", WITH_DOTS)
def test_names_with_dots_are_not_taken_for_paths(here, asked, kind):
    text = WITH_DOTS[kind]
    write(here, {f"en.{kind}": text.format("one", "two", "three"), f"de.{kind}": text.format("eins", "zwei", "")})
    assert pairs_of(f"en.{kind},de.{kind}") == [("one", "eins"), ("two", "zwei")]
    assert main(["translate", "run", f"en.{kind}", "-o", f"de.{kind}"]) == 0 and asked == ["three"]
    assert (here / f"de.{kind}").read_text() == text.format("eins", "zwei", "THREE")


def test_pages_of_other_parts_give_no_pairs(here):
    write(here, {"en.html": "<p>a</p><p>b</p>", "de.html": "<p>a</p>"})
    with pytest.raises(DataError, match="holds no sentence pairs"):
        pairs_of("en.html,de.html")


@pytest.mark.parametrize(("name", "raw"), [(name, raw) for name, some in BROKEN.items() for raw in some])
def test_a_broken_file_of_any_format_is_one_line_exit_2_and_nothing_is_written(here, no_model, capsys, name, raw):
    write(here, {name: raw})
    assert main(["translate", "run", name, "-o", "out", "--from", "en", "--to", "pl"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"dragoman: {name}") and err.count("\n") == 1 and not (here / "out").exists()
    write(here, {f"l/en/{name}": raw, "l/en/good.json": '{"a": "b"}'})
    assert main(["translate", "run", "l/en", "-o", "l/pl", "--to", "pl", "--dry-run"]) in (0, 1)
    assert "good.json: 1 of 1" in capsys.readouterr().out
