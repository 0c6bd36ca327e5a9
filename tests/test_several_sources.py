"""Parallel text named by folders, patterns and several files, and corpora that are smaller than what is asked for."""

import json

import pytest
from test_tables import write
from tiny_run import MODEL

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.cli.train import _default_directory
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.small import hold_out_some
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.formats.pairs import Gettext, Keyed, Table, TextFiles, read_pairs
from dragoman.text.formats.several import guess_sources
from dragoman.text.lines import Pair

PO = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "Door {0}"\nmsgstr "Puerta {0}"\n'


def read(path, columns=None):
    return [pair for source in guess_sources(str(path), columns) for pair in read_pairs(source)]


def fill(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, content)


def test_a_folder_stands_for_the_files_of_pairs_in_it(tmp_path):
    fill(
        tmp_path,
        {
            "es/app.po": PO.replace("{0}", "1"),
            "es/app.mo": b"compiled from app.po",
            "deep/er/b.po": PO.replace("{0}", "2"),
            "more.tsv": "a\tb\n",
            "README.md": "no pairs",
            ".git/x.tsv": "c\td\n",
        },
    )
    assert read(tmp_path) == [("Door 2", "Puerta 2"), ("Door 1", "Puerta 1"), ("a", "b")]
    assert all(isinstance(source, Gettext | Table) for source in guess_sources(str(tmp_path)))


def test_a_pattern_stands_for_the_files_that_match(tmp_path):
    fill(tmp_path, {"a/x.po": PO, "a/b/y.po": PO, "z.po": PO, "a/n.tsv": "a\tb\n"})
    assert len(read(tmp_path / "**/*.po")) == 3
    assert len(read(tmp_path / "a/*.po")) == 1
    assert len(read(tmp_path / "?.po")) == 1
    with pytest.raises(DataError, match=r"\*\.tmx: no file matches this pattern"):
        read(tmp_path / "*.tmx")
    write(tmp_path / "a[1].tsv", "a\tb\n")
    assert read(tmp_path / "a[1].tsv") == [("a", "b")], "a file that exists is that file"


LAYOUTS = {
    "one file a language": ("en.json", "es.json"),
    "a folder a language": ("en/app.json", "es/app.json"),
    "a folder a part": ("light/en.json", "light/es.json"),
    "folders in parts": ("light/en/app.json", "light/es/app.json"),
    "in the name": ("app.en.json", "app.es.json"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_json_files_by_language_is_joined_by_keys(layout, tmp_path):
    names = LAYOUTS[layout]
    fill(tmp_path, {names[0]: json.dumps({"k": "Door"}), names[1]: json.dumps({"k": "Puerta"})})
    with pytest.raises(DataError, match="name the languages: --columns en,es"):
        read(tmp_path)
    assert read(tmp_path, ("en", "es")) == [("Door", "Puerta")]
    with pytest.raises(DataError, match="no JSON or text files for the languages en and fr; there are"):
        read(tmp_path, ("en", "fr"))


def test_patterns_of_two_languages_are_joined_by_keys(tmp_path):
    fill(tmp_path, {"l/en/a.json": '{"k": "Door"}', "l/es/a.json": '{"k": "Puerta"}'})
    pattern = f"{tmp_path}/l/en/*.json,{tmp_path}/l/es/*.json"
    assert read(pattern) == [("Door", "Puerta")]
    assert isinstance(guess_sources(pattern)[0], Keyed)
    with pytest.raises(ConfigError, match="two patterns are for files by language"):
        guess_sources("a/*.en,a/*.es")


TREE = {
    "{0}/app.json": '{{"k": "{0} a"}}',
    "{0}/deep/app_{0}.arb": '{{"k": "{0} b"}}',
    "{0}/res/{1}/strings.xml": "<resources><string name='k'>{0} c</string></resources>",
    "{0}/res/layout.xml": "<layout>{0}</layout>",
    "{0}/page.html": "<p>{0} d</p>",
    "{0}/m.po": 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "en e"\nmsgstr "{0} e"\n',
}
IN_TREE = [(f"en {one}", f"de {one}") for one in "abcde"]


@pytest.mark.parametrize(
    ("folders", "pattern"),
    [
        (("en", "de"), "l/{en,de}"),
        (("en", "de"), "l/{en,de}/**"),
        (("en", "de"), "l/{source,target=de}/**/*"),
        (("source", "de"), "l/{source,target=de}/**"),
    ],
)
def test_a_tree_stands_for_its_files_of_every_format(folders, pattern, tmp_path):
    for folder, language in zip(folders, ("en", "de"), strict=True):
        values = "values" if language == "en" else "values-de"
        texts = {name.format(language, values): text.format(language) for name, text in TREE.items()}
        fill(tmp_path / "l", {folder + name.removeprefix(language): text for name, text in texts.items()})
    assert sorted(read(tmp_path / pattern)) == IN_TREE
    with pytest.raises(DataError, match="no file there has a translation beside it"):
        read(tmp_path / "l/{en,fr}")


@pytest.mark.parametrize("kind", ["json", "arb", "xml", "html", "po"])
@pytest.mark.parametrize("source", ["source", "en"])
def test_a_tree_stands_for_its_files_of_one_format(kind, source, tmp_path):
    for folder, language in ((source, "en"), ("de", "de")):
        values = "values" if language == "en" else "values-de"
        texts = {name.format(language, values): text.format(language) for name, text in TREE.items()}
        fill(tmp_path, {folder + name.removeprefix(language): text for name, text in texts.items()})
    expected = IN_TREE[["json", "arb", "xml", "html", "po"].index(kind)]
    assert read(tmp_path / f"{{source,target=de}}/**/*.{kind}") == [expected]


def test_a_folder_with_named_languages_stands_for_its_files_of_every_format(tmp_path):
    for language, values in (("en", "values"), ("de", "values-de"), ("fr", "values-fr")):
        fill(tmp_path, {name.format(language, values): text.format(language) for name, text in TREE.items()})
    fill(tmp_path, {"App.resx": RESX.format("en f"), "App.de.resx": RESX.format("de f")})
    assert sorted(read(tmp_path, ("en", "de"))) == [*IN_TREE, ("en f", "de f")]


RESX = "<root><data name='k'><value>{0}</value></data></root>"


def test_text_files_of_two_languages_are_named_at_once(tmp_path):
    fill(tmp_path, {"a.en": "x\n", "a.es": "y\n", "en.txt": "z\n", "es.txt": "w\n"})
    assert read(tmp_path / "a.{en,es}") == [("x", "y")]
    assert read(tmp_path / "{en,es}.txt") == [("z", "w")]


def test_a_folder_of_aligned_text_files_is_read_by_languages(tmp_path):
    fill(tmp_path, {"a.en": "x\n", "a.es": "y\n", "b.en": "z\n"})
    assert guess_sources(str(tmp_path), ("en", "es")) == [
        TextFiles(source=str(tmp_path / "a.en"), target=str(tmp_path / "a.es"))
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: an empty folder: there is no file in it$"):
        read(tmp_path / "empty")
    with pytest.raises(DataError, match=r"empty: an empty folder"):
        guess_sources(str(tmp_path / "empty"), ("en", "es"))
    with pytest.raises(ConfigError, match=r"missing: no such file or folder$"):
        read(tmp_path / "missing")


def test_a_run_is_named_after_a_folder_file_or_the_first_word_of_a_pattern():
    names = {"corpus.tsv.gz": "corpus", "locale/**/*.po": "locale", "locale/": "locale", "a.en,a.es": "a"}
    assert {name: _default_directory(name).name for name in names} == names


# ---- small texts ----------------------------------------------------------------------------------


def distinct(count):
    words = [chr(97 + i) * 9 for i in range(26)]
    return [
        Pair(f"{words[i % 26]} {words[i // 26 % 26]} {i}", f"{i} {words[i // 26]} {words[i % 26]}x")
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [3, 5, 20, 100, 676])
def test_less_is_held_out_of_a_small_text_and_something_is_left_to_train_on(count):
    split, used = hold_out_some(distinct(count), HoldOut(near=None))
    assert len(split.test) == used.test >= 1 and len(split.valid) == used.valid >= 1
    assert used.test + used.valid <= max(2, count / 5) and len(split.train) >= count / 3


def test_what_can_be_held_out_as_asked_for_is():
    asked = HoldOut(test=20, valid=10, hard=5, near=None)
    assert hold_out_some(distinct(100), asked)[1] == asked
    assert hold_out_some(distinct(60), asked)[1] != asked
    with pytest.raises(DataError, match="too few"):
        hold_out_some(distinct(2), asked)


@pytest.mark.parametrize("count", [5, 20, 100])
def test_training_begins_with_few_pairs_and_says_what_it_adapted(count, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i},{pair.source},{pair.target}\n" for i, pair in enumerate(distinct(count)))
    write(tmp_path / "few.csv", f"id,en,es\n{rows}")
    settings = [f"model={json.dumps(MODEL)}", "train.budget={kind: steps, steps: 1}"]
    assert main(["train", "--pairs", "few.csv", "--preset", "transformer-small", *settings]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "columns en (source) and es (target), named in its first row" in said
    assert "held out instead: data.hold_out.test=" in said
    found = len(RunDirectory.open(tmp_path / "runs" / "few").tokenizers()[0])
    assert f"trained with tokenizer.vocab={found}" in said
    assert RunDirectory.open(tmp_path / "runs" / "few").config["data"]["train"][0]["source"] == "en"


def test_a_folder_says_which_files_it_leaves_out_until_languages_are_named(tmp_path, capsys):
    fill(tmp_path, {"es/a.po": PO.replace("{0}", "1"), "web/en.json": '{"k": "two"}', "web/es.json": '{"k": "dos"}'})
    fill(tmp_path, {"t.en": "three\n", "t.es": "tres\n", "package.json": "{}", "notes.txt": "x\n"})
    assert main(["data", "stats", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert f"{tmp_path}: 4 files in one language each are left out (t.en, t.es, web/en.json, ...): " in said
    assert said.rstrip().endswith("to read them too, name the languages: --columns en,es")
    assert sorted(read(tmp_path, ("en", "es"))) == [("Door 1", "Puerta 1"), ("three", "tres"), ("two", "dos")]
    assert main(["data", "stats", str(tmp_path), "--columns", "en,es"]) == 0
    assert "left out" not in capsys.readouterr().err
