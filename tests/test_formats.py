"""Reading parallel text: what goes in comes out, pair by pair, and what cannot be read is refused with its place."""

import csv
import gzip
import hashlib
import io
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.cache_folder import cache_folder
from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.text import fetch
from dragoman.text.formats.pairs import (
    JsonLines,
    Keyed,
    Pair,
    PairSource,
    Table,
    TextFiles,
    guess_source,
    read_lines,
    read_pairs,
)

# "\r" is left out: at the end of a line it belongs to the line's end. Surrogates are no text.
LINE = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=20)
CELL = st.text(st.characters(exclude_characters="\0\r\n\t", exclude_categories=["Cs"]), min_size=1, max_size=20)
STRING = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ENDS = st.sampled_from(["\n", "\r\n"])
NO_LINE_ENDS = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"


def without_mark(text: str) -> str:
    return text.removeprefix("\ufeff")  # at the beginning of a file it is a byte-order mark


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


def write(path: Path, content: str | bytes) -> str:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return str(path)


# ---- lines ----------------------------------------------------------------------------------------


@given(lines=st.lists(LINE), end=ENDS, ended=st.booleans(), name=st.sampled_from(["a.txt", "a.txt.gz"]))
def test_lines_come_out_as_they_went_in(folder, lines, end, ended, name):
    content = end.join(lines) + (end if ended or not (lines and lines[-1]) else "") if lines else ""
    read = list(read_lines(write(folder / name, content)))
    assert [without_mark(line) if i == 0 else line for i, line in enumerate(lines)] == read or (
        read == [] and without_mark(content) == ""
    )


@given(content=st.binary(max_size=60))
def test_any_bytes_are_either_read_losslessly_or_refused_with_the_file_named(folder, content):
    path = write(folder / "any.txt", content)
    try:
        lines = list(read_lines(path))
    except DataError as error:
        assert str(error).startswith(path)
    else:
        text = without_mark(content.decode())
        assert "\n".join(lines) == text.replace("\r\n", "\n").removesuffix("\n") or not text
        assert len(lines) == text.count("\n") + bool(text and not text.endswith("\n"))


def test_only_line_feeds_end_lines(tmp_path):
    assert list(read_lines(write(tmp_path / "a", f"{NO_LINE_ENDS}\nx\ry\nlast"))) == [NO_LINE_ENDS, "x\ry", "last"]


def test_a_byte_order_mark_is_dropped(tmp_path):
    assert list(read_lines(write(tmp_path / "a", "\ufeffone\ntwo\n"))) == ["one", "two"]
    assert list(read_lines(write(tmp_path / "b", "\ufeff"))) == []


REFUSED = {
    "not UTF-8": (b"fine\nna\xefve\n", ":2: not UTF-8 at byte 3 of the line (0xef)"),
    "NUL": (b"fine\nfine\na\0b\n", ":3: byte 2 of the line is NUL"),
    "carriage returns": (b"one\rtwo\rthree", "bare carriage returns"),
    "UTF-16": ("ab\n".encode("utf-16"), "is UTF-16: convert it"),
    "UTF-32": ("ab\n".encode("utf-32"), "is UTF-32: convert it"),
    "UTF-16 unmarked": ("ab\n".encode("utf-16-le"), ":1: byte 2 of the line is NUL"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_utf8_text_is_refused_with_its_place(tmp_path, case):
    content, says = REFUSED[case]
    path = write(tmp_path / "a.txt", content)
    with pytest.raises(DataError) as error:
        list(read_lines(path))
    assert str(error.value).startswith(path) and says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-12], lambda data: b"plain text", lambda data: data[:15] + b"xxxxxx"]
)
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    path = tmp_path / "a.gz"
    path.write_bytes(damage(gzip.compress(b"some text\n" * 1000)))
    with pytest.raises(DataError, match=r"a\.gz: damaged, or not gzip"):
        list(read_lines(path))


def test_files_that_cannot_be_opened_are_named(tmp_path):
    with pytest.raises(DataError, match="gone: no such file"):
        list(read_lines(tmp_path / "gone"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_lines(tmp_path))


# ---- two text files -------------------------------------------------------------------------------


@given(pairs=st.lists(st.tuples(CELL, CELL), min_size=1), ends=st.tuples(ENDS, ENDS))
def test_text_files_pair_line_by_line(folder, pairs, ends):
    paths = [write(folder / f"text.{side}", "".join(pair[side] + ends[side] for pair in pairs)) for side in (0, 1)]
    (first, *rest), read = pairs, list(read_pairs(TextFiles(source=paths[0], target=paths[1])))
    assert read == [tuple(map(without_mark, first)), *rest]


@given(counts=st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda counts: counts[0] != counts[1]))
def test_unequal_line_counts_name_both_files_and_counts(folder, counts):
    source, target = (write(folder / f"unequal.{side}", "line\n" * counts[side]) for side in (0, 1))
    with pytest.raises(DataError) as error:
        list(read_pairs(TextFiles(source=source, target=target)))
    assert f"{source} has {counts[0]} lines and {target} has {counts[1]}" in str(error.value)


EMPTY = {
    "text": lambda path: TextFiles(source=path, target=path),
    "table": lambda path: Table(path=path + ".tsv"),
    "header alone": lambda path: Table(path=path + ".csv", header=True),
    "json": lambda path: JsonLines(path=path),
}


@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_file_is_an_error_not_an_empty_corpus(tmp_path, case):
    for name in ("a", "a.tsv"):
        write(tmp_path / name, "")
    write(tmp_path / "a.csv", "source,target\n")
    with pytest.raises(DataError, match="holds no sentence pairs"):
        list(read_pairs(EMPTY[case](str(tmp_path / "a"))))


# ---- tables ---------------------------------------------------------------------------------------


@given(pairs=st.lists(st.tuples(CELL, CELL), min_size=1), name=st.sampled_from(["t.tsv", "t.tsv.gz"]))
def test_tab_separated_text_is_taken_literally(folder, pairs, name):
    path = write(folder / name, "id\tde\ten\n" + "".join(f"7\t{target}\t{source}\n" for source, target in pairs))
    assert list(read_pairs(Table(path=path, source="en", target="de"))) == pairs
    assert list(read_pairs(Table(path=path, source=2, target=1, header=True))) == pairs
    assert list(read_pairs(Table(path=path, source=2, target=1))) == pairs  # the header is noticed
    assert list(read_pairs(Table(path=path, source=2, target=1, header=False))) == [("en", "de"), *pairs]


@given(pairs=st.lists(st.tuples(STRING, STRING), min_size=1))
def test_comma_separated_text_may_hold_quotes_commas_and_line_ends(folder, pairs):
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("source", "target"), *pairs])
    read = list(read_pairs(Table(path=write(folder / "t.csv", out.getvalue()), source="source", target="target")))
    assert [(a.replace("\r\n", "\n"), b.replace("\r\n", "\n")) for a, b in pairs] == read


def test_a_row_with_too_few_columns_names_file_row_and_both_numbers(tmp_path):
    path = write(tmp_path / "t.tsv", "a\tb\tc\n\nd\te\n")
    with pytest.raises(DataError) as error:
        list(read_pairs(Table(path=path, source=0, target=2)))
    assert str(error.value).startswith(f"{path}:3: 3 columns expected, 2 found")


def test_a_row_of_csv_is_named_by_the_line_it_begins_on(tmp_path):
    path = write(tmp_path / "t.csv", 'a,"b\nb"\nc\n')
    with pytest.raises(DataError, match=r"t\.csv:3: 2 columns expected, 1 found"):
        list(read_pairs(Table(path=path)))
    path = write(tmp_path / "t.csv", 'a,b\nc,"d\ne,f\ng,h\n')
    with pytest.raises(DataError, match=r"t\.csv:2: the row that begins here is not CSV"):
        list(read_pairs(Table(path=path)))


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    path = write(tmp_path / "t.tsv", "en\tde\na\tb\n")
    with pytest.raises(DataError, match=r"no column 'fr' in the header: en, de"):
        list(read_pairs(Table(path=path, source="en", target="fr")))
    with pytest.raises(ConfigError, match="counted from 0"):
        list(read_pairs(Table(path=path, source=-1)))
    with pytest.raises(ConfigError, match=r"ends in \.tsv or \.csv"):
        list(read_pairs(Table(path="t.xls")))


# ---- JSON lines -----------------------------------------------------------------------------------


@given(pairs=st.lists(st.tuples(STRING, STRING), min_size=1), ascii_only=st.booleans())
def test_json_lines_keep_every_string(folder, pairs, ascii_only):
    flat, nested = (
        write(folder / name, "".join(json.dumps(make(*pair), ensure_ascii=ascii_only) + "\n" for pair in pairs))
        for name, make in {
            "flat.jsonl": lambda a, b: {"source": a, "target": b, "more": [1]},
            "nested.jsonl.gz": lambda a, b: {"translation": {"en": a, "de": b}},
        }.items()
    )
    assert list(read_pairs(JsonLines(path=flat))) == pairs
    assert list(read_pairs(JsonLines(path=nested, source="translation.en", target="translation.de"))) == pairs


BAD_JSON = {
    "malformed": ('{"source": "a",', "not JSON"),
    "not an object": ('["a", "b"]', "a JSON object expected"),
    "key missing": ('{"source": "a", "ziel": "b"}', "no key 'target' among 'source', 'ziel'"),
    "not a string": ('{"source": "a", "target": 3}', "'target' is not a string but int"),
    "NUL": ('{"source": "a", "target": "\\u0000"}', "holds \\u0000"),
    "half a pair": ('{"source": "\\ud800", "target": "b"}', "holds \\ud800"),
    "too deep": ("[" * 100_000, "not JSON"),
    "too long a number": ("1" * 5000, "not JSON"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_a_bad_record_is_named_by_file_and_line(tmp_path, case):
    line, says = BAD_JSON[case]
    path = write(tmp_path / "a.jsonl", '{"source": "a", "target": "b"}\n\n' + line + "\n")
    with pytest.raises(DataError) as error:
        list(read_pairs(JsonLines(path=path)))
    assert str(error.value).startswith(f"{path}:3: ") and says in str(error.value)


# ---- keyed files ----------------------------------------------------------------------------------

ENGLISH = {"title": "Light", "state": {"on": "On", "off": "Off", "deep": [{"x": "Deep"}]}, "only": "English", "n": 3}
GERMAN = {"state": {"off": "Aus", "on": "An", "deep": [{"x": "Tief"}]}, "title": "Licht", "extra": "Deutsch", "n": 4}
FILES = {
    "app/light/translations/en.json": json.dumps(ENGLISH),
    "app/light/translations/de.json": "\ufeff" + json.dumps(GERMAN),
    "app/door/translations/en.json": '{"open": "Opened", "open": "Open"}',
    "app/door/translations/de.json": '{"open": "Offen"}',
    "app/bell/translations/en.json": '{"ring": "Ring"}',
    "docs/manifest.json": "{}",
}
PATTERNS = {"source": "*/translations/en.json", "target": "*/translations/de.json"}
JOINED = [("Open", "Offen"), ("Light", "Licht"), ("On", "An"), ("Off", "Aus"), ("Deep", "Tief")]


def pack(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def unpack(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("lay_out", [pack, unpack])
def test_keyed_files_join_by_file_and_key_path(tmp_path, lay_out):
    root = lay_out(tmp_path / "root.whl", FILES)
    assert list(read_pairs(Keyed(root=str(root), **PATTERNS))) == JOINED


LEAVES = st.recursive(
    STRING | st.integers(),
    lambda node: st.dictionaries(STRING, node, max_size=3) | st.lists(node, max_size=3),
    max_leaves=6,
)


@given(tree=st.dictionaries(STRING, LEAVES, max_size=3))
def test_a_file_joined_with_itself_pairs_every_string_with_itself(folder, tree):
    def strings(node):
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        if isinstance(node, str):
            return [node] if node.strip() else []
        return [leaf for child in children for leaf in strings(child)]

    root = pack(folder / "same.zip", {"a/en.json": json.dumps(tree)})
    source = Keyed(root=str(root), source="*/en.json", target="*/en.json")
    if expected := strings(tree):
        assert list(read_pairs(source)) == [(text, text) for text in expected]


def test_patterns_that_match_nothing_say_what_there_is(tmp_path):
    root = str(pack(tmp_path / "root.zip", FILES))
    with pytest.raises(DataError, match=r"none of its 6 files matches '\*/translations/fr\.json'.* de, en$"):
        list(read_pairs(Keyed(root=root, source=PATTERNS["source"], target="*/translations/fr.json")))
    with pytest.raises(DataError, match=r"3 files match .* and 1 match .*never matches the same text"):
        list(read_pairs(Keyed(root=root, source=PATTERNS["source"], target="*/manifest.json")))
    with pytest.raises(ConfigError, match="same number of"):
        list(read_pairs(Keyed(root=root, source=PATTERNS["source"], target="*/*/de.json")))
    with pytest.raises(ConfigError, match=r"read from \.json, .* files, not from \.po"):
        list(read_pairs(Keyed(root=root, source="*/en.po", target="*/de.po")))


@pytest.mark.parametrize("lay_out", [pack, unpack])
@pytest.mark.parametrize("text", ['{"open": ', '{"open": "\\u0000"}'])
def test_a_bad_file_among_many_is_named(tmp_path, lay_out, text):
    root = lay_out(tmp_path / "root.zip", FILES | {"app/door/translations/de.json": text})
    with pytest.raises(DataError, match=r"door/translations/de\.json"):
        list(read_pairs(Keyed(root=str(root), **PATTERNS)))


def test_a_root_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(DataError, match="no such folder or file"):
        list(read_pairs(Keyed(root=str(tmp_path / "gone"), **PATTERNS)))
    root = pack(tmp_path / "root.zip", FILES)
    whole = root.read_bytes()
    root.write_bytes(whole[:-30])
    with pytest.raises(DataError, match="not a zip file, or damaged"):
        list(read_pairs(Keyed(root=str(root), **PATTERNS)))
    at = whole.index(b'"Opened"')
    root.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
    with pytest.raises(DataError, match=r"door/translations/en\.json in it cannot be read"):
        list(read_pairs(Keyed(root=str(root), **PATTERNS)))


def test_the_checksum_of_a_zip_is_verified(tmp_path):
    root = pack(tmp_path / "root.zip", FILES)
    sha256 = hashlib.sha256(root.read_bytes()).hexdigest()
    assert list(read_pairs(Keyed(root=str(root), sha256=sha256, **PATTERNS))) == JOINED
    with pytest.raises(DataError, match=rf"root\.zip: its sha256 is {sha256}, not 1234"):
        list(read_pairs(Keyed(root=str(root), sha256="1234", **PATTERNS)))
    with pytest.raises(ConfigError, match="this is a folder"):
        list(read_pairs(Keyed(root=str(tmp_path), sha256=sha256, **PATTERNS)))


# ---- fetching -------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one wheel, in place of pip; counts how often it is asked."""
    monkeypatch.setenv("DRAGOMAN_CACHE", str(tmp_path / "cache"))
    asked = []

    def run(command, **_):
        asked.append(command[-1])
        if command[-1] != "App==1.0":
            return subprocess.CompletedProcess(command, 1, "", "WARNING: a\nERROR: No matching distribution\n")
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        pack(folder / "app-1.0-py3-none-any.whl", FILES)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return asked


def test_a_wheel_is_fetched_once_and_read_from_the_cache(index):
    for _ in range(2):
        assert list(read_pairs(Keyed(root="pypi:App==1.0", **PATTERNS))) == JOINED
    assert index == ["App==1.0"]


def test_a_wheel_that_was_damaged_in_the_cache_is_refused(index):
    path = fetch.fetch_wheel("pypi:App==1.0")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"app-1\.0-py3-none-any\.whl: its sha256 is"):
        fetch.fetch_wheel("pypi:App==1.0", sha256)


def test_a_wheel_with_another_checksum_is_not_kept(index):
    with pytest.raises(DataError, match="its sha256 is"):
        fetch.fetch_wheel("pypi:App==1.0", "0" * 64)
    assert list((cache_folder() / "wheels").iterdir()) == []


def test_what_pip_cannot_fetch_is_one_line_with_its_reason(index):
    with pytest.raises(DataError) as error:
        fetch.fetch_wheel("pypi:other==2.0")
    assert str(error.value).startswith("other==2.0: pip could not fetch it (ERROR: No matching distribution)")
    for root in ("pypi:app", "pypi:--option==1", "pypi:app==1.0 --option"):
        with pytest.raises(ConfigError, match="NAME==VERSION"):
            fetch.fetch_wheel(root)


# ---- anything at all ------------------------------------------------------------------------------

AWKWARD = st.text(
    st.sampled_from('ab",\t\n\r{}[]:\\\0\u2028\ufeff"') | st.characters(exclude_categories=["Cs"]), max_size=40
)


@given(content=AWKWARD.map(str.encode) | st.binary(max_size=40), name=st.sampled_from(["x.tsv", "x.csv", "x.jsonl"]))
def test_every_reader_gives_pairs_of_text_or_one_line_that_names_the_file(folder, content, name):
    path = write(folder / name, content)
    try:
        for pair in read_pairs(guess_source(path)):
            assert all(text.encode().decode() == text and "\0" not in text for text in pair)
    except DataError as error:
        assert str(error).startswith(path) and "\n" not in str(error)


# ---- choosing -------------------------------------------------------------------------------------


def test_a_source_is_guessed_from_its_name(tmp_path):
    plain, named = write(tmp_path / "a.tsv", "x\ty\n"), write(tmp_path / "b.csv.gz", "id,target,source\n1,y,x\n")
    assert guess_source(plain) == Table(path=plain)
    assert list(read_pairs(guess_source(named))) == [Pair("x", "y")]
    assert guess_source("c.jsonl.gz") == JsonLines(path="c.jsonl.gz")
    assert guess_source("c.en, c.de") == TextFiles(source="c.en", target="c.de")
    with pytest.raises(
        ConfigError, match=r"a Word document, which holds no pairs.*\.tsv, \.csv, \.jsonl, .*or that and \.gz"
    ):
        guess_source("corpus.doc")
    with pytest.raises(DataError, match=r"gone\.tsv: no such file"):
        guess_source("gone.tsv")


@pytest.mark.parametrize(
    "source", [Table(path="a.tsv", source="en", target=3), Keyed(root="a", source="*", target="*")]
)
def test_a_source_survives_its_configuration_file(source):
    assert from_dict(PairSource, to_dict(source)) == source
