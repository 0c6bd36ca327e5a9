"""Every format that can be filled is training text as well, in itself or in pairs of files; Qt and Apple's catalogues
in detail."""

import json

import pytest

from dragoman.cli import main
from dragoman.errors import ConfigError, DataError
from dragoman.text.filled.opening import KINDS
from dragoman.text.formats.bilingual import BilingualFile
from dragoman.text.formats.kinds import BILINGUAL, KEYED
from dragoman.text.formats.pairs import PAIR_ENDINGS, guess_source, read_pairs
from dragoman.text.formats.several import guess_sources
from dragoman.text.lines import Pair
from dragoman.text.memory import TranslationMemory

QT = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="de_DE" sourcelanguage="en">
<context><name>Main</name>
  <message><source>Open</source><translation>Öffnen</translation></message>
  <message><source>Close &amp;all</source><translation type="unfinished">Alle schließen</translation></message>
  <message><source>Gone</source><translation type="vanished">Weg</translation></message>
  <message><source>Old</source><translation type="obsolete">Alt</translation></message>
  <message><source>New</source><translation type="unfinished"></translation></message>
  <message><source>None</source></message>
  <message numerus="yes"><source>%n file(s)</source><translation><numerusform>%n Datei</numerusform>
     <numerusform>%n Dateien</numerusform></translation></message>
</context></TS>
"""


def unit(value, state="translated"):
    return {"stringUnit": {"state": state, "value": value}}


def catalog(*languages):
    plural = {"variations": {"plural": {"one": unit("%d Tag"), "other": unit("%d Tage")}}}
    source = {"variations": {"plural": {"one": unit("%d day"), "other": unit("%d days")}}}
    strings = {
        "Open": {"localizations": {language: unit(f"Open {language}") for language in languages}},
        "Close": {"localizations": {"de": unit("Zu", "needs_review")}},
        "New": {"localizations": {"de": unit("", "new")}},
        "Nothing": {},
        "Name": {"shouldTranslate": False, "localizations": {"de": unit("Name")}},
        "%d days": {"localizations": {"en": source, "de": plural}},
    }
    return json.dumps({"sourceLanguage": "en", "strings": strings, "version": "1.0"}, ensure_ascii=False)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != ".pot"])  # a template holds no translations
def test_every_format_that_can_be_filled_is_training_text(kind):
    assert kind in PAIR_ENDINGS or kind in KEYED
    assert (kind in BILINGUAL) <= (kind in PAIR_ENDINGS)


def test_translations_of_qt_that_are_finished_are_pairs(write):
    assert list(read_pairs(guess_source(write("a.ts", QT)))) == [
        Pair("Open", "Öffnen"),
        Pair("%n file(s)", "%n Datei"),
        Pair("%n file(s)", "%n Dateien"),
    ]


def test_translations_of_a_catalog_that_need_no_review_are_pairs(write):
    pairs = list(read_pairs(guess_source(write("a.xcstrings", catalog("de")))))
    assert pairs == [Pair("Open", "Open de"), Pair("%d day", "%d Tag"), Pair("%d days", "%d Tage")]


@pytest.mark.parametrize(
    ("languages", "columns", "first"),
    [
        (("de", "fr"), ("en", "fr"), "Open fr"),
        (("de", "pt-BR"), ("en", "pt"), "Open pt-BR"),
        (("de", "pt", "pt-BR"), ("en", "pt-BR"), "Open pt-BR"),
        (("en", "de"), None, "Open de"),
        (("de",), ("en-US", "de-AT"), "Open de"),
    ],
)
def test_a_catalog_of_several_languages_gives_the_one_that_is_named(write, languages, columns, first):
    pairs = read_pairs(guess_source(write("a.xcstrings", catalog(*languages)), columns))
    assert next(pairs).target == first


@pytest.mark.parametrize(
    ("name", "content", "columns", "said"),
    [
        ("a.xcstrings", catalog("de", "fr"), None, "which of its languages (de, fr) is the target? Name both, as with"),
        ("a.xcstrings", catalog("de"), ("en", "it"), "has no translations in it; its languages: de"),
        ("a.xcstrings", catalog("de"), ("fr", "de"), "its source language is en, not fr"),
        ("a.xcstrings", '{"strings": 3}', None, "a.xcstrings"),
        ("a.xcstrings", "[" * 100_000, None, "a.xcstrings"),
        ("a.xcstrings", "", None, "a.xcstrings"),
        ("a.ts", QT.replace("</TS>", ""), None, "a.ts:14: not well-formed XML"),
        ("a.ts", "export const a: string = 'x'\n", None, "a.ts"),
        ("a.ts", QT.replace("Öffnen", "").replace("Datei", "").replace("%n ", "").replace("en</", "</"), None, "pairs"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_read_is_one_line_with_the_file(write, name, content, columns, said):
    path = write(name, content)
    with pytest.raises((DataError, ConfigError)) as error:
        list(read_pairs(guess_source(path, columns)))
    assert said in str(error.value) and path in str(error.value) and "\n" not in str(error.value)


def test_a_folder_of_typescript_is_not_taken_for_translations(write, tmp_path):
    write("web/main.ts", "export const a = 1;\n")
    write("web/app_de.ts", QT)
    write("web/a.tsv", "Door\tTür\n")
    found = guess_sources(str(tmp_path / "web"))
    assert [source.path.rpartition("/")[2] for source in found if isinstance(source, BilingualFile)] == ["app_de.ts"]
    assert len(found) == 2


def test_a_tree_of_one_language_is_read_by_its_pattern(write, tmp_path):
    for language in ("de", "fr"):
        write(f"i18n/{language}/app.ts", QT.replace("Öffnen", language))
    (source,) = guess_sources(f"{tmp_path}/i18n/{{source,target=fr}}/*.ts")
    assert next(read_pairs(source)) == Pair("Open", "fr")


@pytest.mark.parametrize(
    ("files", "named", "languages"),
    [
        ({"a.ts": QT}, "a.ts", (None, None)),
        ({"a.xcstrings": catalog("de", "fr").replace("Open de", "Öffnen")}, "a.xcstrings", ("en", "de")),
        ({"en/a.json": '{"a": "Open"}', "de/a.json": '{"a": "Öffnen"}'}, "{en,de}/*.json", (None, None)),
        ({"en.ftl": "a = Open\n", "de.ftl": "a = Öffnen\n"}, "en.ftl,de.ftl", (None, None)),
        ({"m/a.po": 'msgid "Open"\nmsgstr "Öffnen"\n', "m/b.tsv": "Door\tTür\n"}, "m", (None, None)),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_translation_memory_is_any_files_with_pairs(write, tmp_path, monkeypatch, files, named, languages):
    for name, content in files.items():
        write(name, content)
    monkeypatch.chdir(tmp_path)
    assert TranslationMemory.read([named], *languages).find("Open") == "Öffnen"


def test_the_pairs_of_a_catalog_are_trained_on_from_the_command_line(write, tmp_path, capsys):
    path = write("a.xcstrings", catalog("de", "fr"))
    assert main(["train", "--pairs", path, "--run", str(tmp_path / "run")]) == 2
    assert "which of its languages (de, fr) is the target?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
