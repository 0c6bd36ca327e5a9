"""What an argument is: standard input, a file, or text; and files that are not what lines of text are."""

import bz2
import gzip
import io
import lzma
import os
import re
import sys
import threading

import pytest
import zstandard
from tiny_run import config as tiny_config
from tiny_run import write_pairs

from dragoman.cli import main
from dragoman.cli.argument import check_several, is_file, lines_of_text
from dragoman.cli.lines import input_lines
from dragoman.errors import ConfigError, DataError
from dragoman.text.filled.opening import KINDS, OPENERS, open_document
from dragoman.text.formats.kinds import DOCUMENTS, TABLES, UNSUPPORTED, is_known, plain_lines
from dragoman.text.formats.pairs import guess_source
from dragoman.text.lines import read_lines
from dragoman.train.run import start

PO = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "Door"\nmsgstr ""\n'
PACKED = {
    ".gz": gzip.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments")
    run = start(tiny_config(write_pairs(folder / "pairs.tsv")), folder / "run")
    for _ in run.events():
        pass
    return str(folder / "run")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def translated(run, *arguments, capsys):
    code = main(["translate", run, *arguments, "--beam", "1"])
    out, err = capsys.readouterr()
    return code, out, err


def entries_filled(err):
    """Count the entries that got a translation, whether or not it is marked for review."""
    return sum(map(int, re.findall(r"(\d+) (?:translated;|more filled in and marked for review)", err)))


# ---- the rule -------------------------------------------------------------------------------------

TEXTS = [
    "On/Off",
    "km/h",
    "and/or/not",
    "The battery is low and the door is open. " * 8,
    "x" * 300,
    "a/" * 3000,
    "~",
    "Hello.",
    "e.g.",
    "Wait...",
    "https://example.org/a?b=c",
    "Save it as notes.txt",
    "It is called .txt",
    "3.14",
    "",
    " ",
    "user@example.org",
    "a\nb",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_what_is_no_name_of_a_file_is_text(text, here):
    assert not is_file(text)
    assert list(input_lines(text)) == text.split("\n")


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "app.po", "app.po.gz", "strings.json", "./notes", "../x", "/tmp/absent/x", "~/x", "a/b.csv", "X.TXT"],
)
def test_what_looks_like_a_name_and_is_none_is_missed_not_translated(name, here):
    with pytest.raises(DataError, match=r"no such file .*standard input"):
        input_lines(name)


def test_what_exists_is_a_file_whatever_it_is_called(here):
    for name in ("Door", "On Off", "a.unknown", "corpus.en", "ü"):
        (here / name).write_text("a line\n")
        assert list(input_lines(name)) == ["a line"]
    (here / "folder").mkdir()
    for name in (".", "folder", "folder/", str(here)):
        with pytest.raises(DataError, match="is a folder"):
            input_lines(name)
    (here / "to nothing").symlink_to(here / "gone")
    with pytest.raises(DataError, match="no such file"):
        list(input_lines("to nothing"))


def test_what_no_text_can_hold_is_told():
    with pytest.raises(DataError, match="holds a NUL"):
        lines_of_text("a\0b")
    with pytest.raises(DataError, match="not UTF-8"):
        lines_of_text(os.fsdecode(b"caf\xe9"))
    assert not is_file("a\0b") and not is_file(os.fsdecode(b"caf\xe9 au lait"))


def test_several_arguments_are_several_files(here):
    for name in ("a.txt", "b.txt"):
        (here / name).write_text(f"{name}\n")
    assert list(input_lines(["b.txt", "a.txt", "b.txt"])) == ["b.txt", "a.txt", "b.txt"]
    with pytest.raises(ConfigError, match=r"'Hello': no such file: several arguments .* in quotes"):
        check_several(["Hello", "world"])
    with pytest.raises(DataError, match=r"gone\.txt: no such file"):
        input_lines(["a.txt", "gone.txt"])
    with pytest.raises(ConfigError, match="once only"):
        check_several(["-", "-"])


def test_pipes_and_standard_input_are_read(here, monkeypatch):
    os.mkfifo(here / "pipe")
    writer = threading.Thread(target=lambda: (here / "pipe").write_text("Door\nWindow\n"))
    writer.start()
    assert list(input_lines("pipe")) == ["Door", "Window"]
    writer.join()
    read, write = os.pipe()
    os.write(write, b"Door\n")
    os.close(write)
    assert list(input_lines(f"/dev/fd/{read}")) == ["Door"]
    os.close(read)
    for argument in (None, "-", []):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
        assert list(input_lines(argument)) == ["a", "b"]


# ---- kinds of files -------------------------------------------------------------------------------


def test_every_ending_has_one_home():
    homes = [set(TABLES), set(DOCUMENTS), set(UNSUPPORTED)]
    assert sum(map(len, homes)) == len(set().union(*homes))
    assert set(KINDS) == set(OPENERS) == set(DOCUMENTS) - {".mo"} | {".csv", ".tsv"}
    assert all(is_known(f"a{ending}") and is_known(f"a{ending}.gz") for home in homes for ending in home)


@pytest.mark.parametrize("ending", [*UNSUPPORTED, *TABLES, *DOCUMENTS])
def test_a_file_that_is_no_lines_of_text_is_refused_by_name_unless_insisted(ending, here):
    (here / f"a{ending}").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=rf"^a\{ending}: .*--as text reads it as lines"):
        input_lines(f"a{ending}")
    assert list(input_lines(f"a{ending}", as_kind="text")) == ["one", "two"]


def test_tables_are_read_by_a_column(here):
    (here / "a.tsv").write_text("The door is open.\tLa puerta\nLight\tLuz\n")
    with pytest.raises(DataError, match=r"a\.tsv: a table: name the column to read with --column"):
        input_lines("a.tsv")
    assert list(input_lines("a.tsv", column="0")) == ["The door is open.", "Light"]
    assert list(input_lines(["a.tsv", "a.tsv"], column="1")) == ["La puerta", "Luz"] * 2
    with pytest.raises(ConfigError, match="only one of them"):
        input_lines("a.tsv", column="0", as_kind="text")
    with pytest.raises(ConfigError, match="only text is supported here"):
        input_lines("a.tsv", as_kind="po")


@pytest.mark.parametrize(
    "content",
    [
        PO,
        "# a comment\n\n" + PO,
        '<?xml version="1.0"?>\n<x/>\n',
        '<xliff version="1.2">\n',
        "<!DOCTYPE html>\n",
        "WEBVTT\n\n00:01\n",
        "{\\rtf1\n",
    ],
)
def test_a_file_whose_name_does_not_tell_is_told_by_how_it_begins(content, here):
    (here / "unnamed").write_text(content)
    with pytest.raises(DataError, match=r"unnamed:\d: this is .*; --as text reads it as lines of text"):
        list(input_lines("unnamed"))
    assert list(input_lines("unnamed", as_kind="text")) == content.splitlines()


def test_lines_that_only_resemble_markup_stay_text():
    lines = ["# Title", "<b>bold</b> words", "msgid is a key", "xml is <?xml", "{rtf}"]
    assert list(plain_lines(lines, "x")) == lines
    assert list(plain_lines(["a", 'msgid "b"'], "x")) == ["a", 'msgid "b"'], "only the beginning counts"


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"PK\x03\x04\x14\0\0\0",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        b"\xff\xfeD\0o\0",
        b"caf\xe9\n",
    ],
)
def test_bytes_that_are_no_utf8_text_are_one_line_of_error(content, run, here, capsys):
    (here / "unnamed").write_bytes(content)
    code, out, err = translated(run, "unnamed", capsys=capsys)
    assert (code, out) == (2, "") and err.startswith("dragoman: unnamed") and err.count("\n") == 1


# ---- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", PACKED)
def test_a_compressed_document_is_opened_as_the_document_it_is(ending, run, here, capsys):
    path = here / f"app.po{ending}"
    path.write_bytes(PACKED[ending](PO.encode()))
    assert [slot.text for slot in open_document(path).slots] == ["Door"]
    code, out, err = translated(run, path.name, capsys=capsys)
    assert code == 0 and out.startswith(PO.partition('\nmsgid "Door"')[0]) and 'msgid "Door"\nmsgstr "' in out
    assert entries_filled(err) == 1
    path.write_bytes(PACKED[ending](PO.encode())[:-9])
    with pytest.raises(DataError, match=rf"app\.po\{ending}: damaged, or not"):
        open_document(path)


@pytest.mark.parametrize("ending", PACKED)
def test_compressed_lines_and_what_only_claims_to_be_compressed(ending, here):
    (here / f"a.txt{ending}").write_bytes(PACKED[ending](b"one\ntwo\n"))
    assert list(read_lines(f"a.txt{ending}")) == ["one", "two"]
    (here / f"b.txt{ending}").write_bytes(b"plain text\n")
    with pytest.raises(DataError, match=rf"b\.txt\{ending}: damaged, or not"):
        list(read_lines(f"b.txt{ending}"))


def test_several_documents_go_into_a_folder_under_their_names(run, here, capsys):
    for name in ("a.po", "b.po"):
        (here / name).write_text(PO)
    code, _, err = translated(run, "a.po", "b.po", capsys=capsys)
    assert code == 2 and "several documents are written into a folder" in err
    code, _, err = translated(run, "a.po", "b.po", "-o", "out", capsys=capsys)
    assert code == 0 and sorted(path.name for path in (here / "out").iterdir()) == ["a.po", "b.po"]
    (here / "a.txt").write_text("x\n")
    code, _, err = translated(run, "a.po", "a.txt", "-o", "out", capsys=capsys)
    assert code == 2 and "a.txt: not a document" in err
    assert translated(run, "a.po", str(here / "a.po"), "-o", "out", capsys=capsys)[0] == 2, "one name for two"


def test_a_document_without_a_name_is_read_as_what_it_is_said_to_be(run, here, capsys, monkeypatch):
    (here / "unnamed").write_text(PO)
    code, out, _ = translated(run, "unnamed", "--as", "po", capsys=capsys)
    assert code == 0 and 'msgid "Door"\nmsgstr "' in out
    for insisted in ((), ("--as", "po")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PO.encode())))
        code, out, err = translated(run, "-", *insisted, capsys=capsys)
        assert (entries_filled(err), code) == ((1, 0) if insisted else (0, 2))
    code, _, err = translated(run, "unnamed", "--as", "pox", capsys=capsys)
    assert code == 2 and "Did you mean 'po'?" in err


def test_commands_take_long_sentences_slashes_several_files_and_empty_ones(run, here, capsys):
    (here / "a.txt").write_text("the house\nred\n")
    (here / "b.txt").write_text("a car\n")
    (here / "empty.txt").write_text("")
    for arguments, lines in (
        (["the big house " * 40], 1),
        (["on/off"], 1),
        (["a.txt", "b.txt"], 3),
        (["empty.txt"], 0),
    ):
        code, out, err = translated(run, *arguments, capsys=capsys)
        assert (code, out.count("\n")) == (0, lines), err
    assert main(["translate", "x" * 300, "Hello"]) == 2 and "Traceback" not in capsys.readouterr().err
    assert main(["score", run, "y" * 300]) == 2 and capsys.readouterr().err.count("\n") == 1
    assert main(["evaluate", run, "a,b" * 200]) == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("names", ["a.json,b.json", "a.en,b.po", "a.tsv,b.tsv", "a.srt,b.srt", "a.docx.gz,b.docx.gz"])
def test_two_files_that_are_no_lines_of_text_are_no_pairs(names):
    with pytest.raises(ConfigError, match="two text files are expected"):
        guess_source(names)


def test_several_text_files_go_into_a_folder_under_their_names_or_into_one_file(run, here, capsys):
    for name, text in (("a.txt", "red house\n12\n"), ("b.txt", "\n"), ("c.txt.gz", "")):
        opened = gzip.open if name.endswith(".gz") else open
        with opened(here / name, "wt") as file:
            file.write(text or "a dog\n")
    (here / "out").mkdir()
    (here / "more").mkdir()
    (here / "more" / "a.txt").write_text("x\n")
    translate = ["translate", str(run), "--beam", "1"]
    assert main([*translate, "a.txt", "b.txt", "c.txt.gz", "-o", "out"]) == 0
    written = [list(read_lines(str(here / "out" / name))) for name in ("a.txt", "b.txt", "c.txt.gz")]
    assert [len(lines) for lines in written] == [2, 1, 1] and written[0][1] == "12" and written[1] == [""]
    assert main([*translate, "a.txt", "b.txt", "-o", "all.txt"]) == 0
    assert len((here / "all.txt").read_text().split("\n")) == 4
    for arguments, says in (
        (["a.txt", "more/a.txt", "-o", "out"], "two of the files would be written there"),
        (["a.txt", "-", "-o", "out"], "standard input has no name"),
        (["a.txt", "-o", "out"], "is a folder"),
        (["a.txt", "b.txt", "-o", "absent/out.txt"], "there is no folder"),
    ):
        capsys.readouterr()
        assert main([*translate, *arguments]) == 2
        assert says in capsys.readouterr().err
