"""Files that a person named to be written: what has the name already is respected, and errors are one line."""

import bz2
import errno
import gzip
import lzma
import os
import pty
import shutil
import stat
import threading
from pathlib import Path

import pytest
import zstandard
from test_every_command import make

from dragoman import output_file
from dragoman.cli import main
from dragoman.errors import OutputError
from dragoman.output_file import check_output_file, open_output
from dragoman.text.compressed import create_text


def write(path, text="new\n"):
    with create_text(path) as file:
        file.write(text)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- what has the name already ---------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.txt"
    path.write_text("old content, which is longer than the new\n")
    return path


def test_a_link_stays_and_what_it_points_to_is_replaced(old, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "near").symlink_to("old.txt")
    (tmp_path / "folder" / "far").symlink_to("../near")  # relative, and a link to a link
    write(tmp_path / "folder" / "far")
    assert (
        old.read_text() == "new\n" and (tmp_path / "folder" / "far").is_symlink() and (tmp_path / "near").is_symlink()
    )


def test_a_link_to_nothing_gets_its_file(tmp_path):
    (tmp_path / "link").symlink_to("later.txt")
    write(tmp_path / "link")
    assert (tmp_path / "later.txt").read_text() == "new\n" and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o755, 0o666])
def test_the_mode_stays(old, bits):
    old.chmod(bits)
    write(old)
    assert mode(old) == bits and old.read_text() == "new\n"


def test_a_private_file_is_private_while_it_is_written(old, tmp_path):
    old.chmod(0o600)
    with open_output(old) as file:
        file.write(b"secret")
        assert {mode(path) for path in tmp_path.iterdir()} == {0o600}


def test_hard_links_stay_links(old, tmp_path):
    os.link(old, tmp_path / "other")
    write(tmp_path / "other")
    assert old.read_text() == "new\n" and old.stat().st_nlink == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_stays(old):
    os.chown(old, 1234, 1235)
    write(old)
    assert (old.stat().st_uid, old.stat().st_gid) == (1234, 1235)


def test_a_fifo_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(tmp_path / "pipe", "one\ntwo\n")
    reader.join(10)
    assert read == [b"one\ntwo\n"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_who_reads_a_fifo_gets_each_line_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    handle = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with create_text(tmp_path / "pipe") as file:
        file.write("one\n")
        assert os.read(handle, 100) == b"one\n"
    os.close(handle)


def test_a_terminal_is_written_into():
    ours, theirs = pty.openpty()
    write(os.ttyname(theirs), "new\n")
    assert os.read(ours, 100).rstrip() == b"new"
    assert stat.S_ISCHR(os.fstat(theirs).st_mode)
    os.close(ours), os.close(theirs)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices, and only root could replace one")
def test_a_device_is_written_into_and_stays(tmp_path):
    try:
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        write(tmp_path / "null")
    except (PermissionError, OutputError):
        return  # a container that may not: the terminal above is a device as well
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)


def test_a_name_for_an_open_file_adds_to_it(tmp_path):
    handle = os.open(tmp_path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(handle, b"first\n")
    write(f"/dev/fd/{handle}")
    (tmp_path / "link").symlink_to(f"/proc/self/fd/{handle}")
    write(tmp_path / "link", "newer\n")
    os.close(handle)
    assert (tmp_path / "log.txt").read_text() == "first\nnew\nnewer\n"


def test_nothing_changes_where_writing_fails(old, tmp_path):
    os.link(old, tmp_path / "other")  # which is overwritten, not replaced
    (tmp_path / "alone.txt").write_text("alone\n")
    for path in (old, tmp_path / "alone.txt"):
        before = path.read_bytes()
        with pytest.raises(RuntimeError), open_output(path) as file:
            file.write(b"half")
            raise RuntimeError
        assert path.read_bytes() == before
    assert listing(tmp_path) == ["alone.txt", "old.txt", "other"]


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("fails", "links"), [("write", 1), ("write", 2), ("fsync", 1), ("fsync", 2), ("posix_fallocate", 2)]
)
def test_a_full_disk_is_one_line_and_the_old_file_is_intact(fails, links, tmp_path, monkeypatch):
    path = tmp_path / "out.txt"
    path.write_text("old\n")
    if links == 2:
        os.link(path, tmp_path / "other.txt")
    names = listing(tmp_path)
    monkeypatch.setattr(output_file.os, fails, full)
    with pytest.raises(OutputError, match=r"out.txt: cannot be written to: No space left on device: make room"):
        write(path, "new and longer\n")
    monkeypatch.undo()
    assert listing(tmp_path) == names
    if fails != "fsync" or links == 1:  # all of it had been written
        assert path.read_text() == "old\n"


# ---- what cannot be written ------------------------------------------------------------------------


def test_what_cannot_be_written_is_known_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to("absent/file")
    for name, message in {
        "no/such/out.txt": "there is no folder",
        ".": "is a folder",
        "file/out.txt": "is a file, not a folder",
        "gone": "there is no folder",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(OutputError, match=message):
            check_output_file(tmp_path / name)
    assert listing(tmp_path) == ["file", "gone"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_what_is_read_only_is_known_beforehand(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    (tmp_path / "kept.txt").write_text("kept\n")
    (tmp_path / "kept.txt").chmod(0o444)
    child = os.fork()
    if not child:  # root may write everywhere
        code = 1
        try:
            os.chmod(tmp_path, 0o777)
            os.setuid(65534)
            told = []
            for name in ("closed/new.txt", "kept.txt"):
                try:
                    check_output_file(tmp_path / name)
                except OutputError as error:
                    told.append("read-only" in str(error))
            code = 0 if told == [True, True] or not os.access(tmp_path, os.X_OK) else 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- compressed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "read"),
    {
        ".gz": gzip.decompress,
        ".GZ": gzip.decompress,
        ".zst": lambda content: zstandard.ZstdDecompressor().decompressobj().decompress(content),
        ".bz2": bz2.decompress,
        ".xz": lzma.decompress,
        ".txt": bytes,
    }.items(),
)
def test_a_name_says_how_its_file_is_compressed(ending, read, tmp_path):
    write(tmp_path / f"out.txt{ending}", "Tür\n" * 1000)
    content = (tmp_path / f"out.txt{ending}").read_bytes()
    assert read(content) == "Tür\n".encode() * 1000
    write(tmp_path / f"again{ending}", "Tür\n" * 1000)
    assert (tmp_path / f"again{ending}").read_bytes() == content


# ---- commands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    kinds = ("translation", "classifier", "tagger", "embedder", "language_model", "spans")
    return {name: make(name, folder / name) for name in kinds}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text("ab\ncd\n")
    (tmp_path / "lines.tsv").write_text("ab\tb\ncd\td\n")
    (tmp_path / "asked.jsonl").write_text('{"context": "ab cd", "question": "ab"}\n')
    (tmp_path / "in.po").write_text('msgid ""\nmsgstr "Language: de\\n"\n\nmsgid "ab"\nmsgstr ""\n')
    (tmp_path / "in.xlf").write_text(
        '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file source-language="en" '
        'target-language="de" datatype="plaintext" original="a"><body><trans-unit id="1"><source>ab</source>'
        "</trans-unit></body></file></xliff>"
    )
    (tmp_path / "in.tmx").write_text(
        '<tmx version="1.4"><header srclang="en"/><body><tu><tuv xml:lang="en"><seg>ab</seg></tuv></tu></body></tmx>'
    )
    return tmp_path


WRITING = {
    "text": ("translation", "translate RUN lines.txt --beam 1 -o OUT"),
    "json": ("translation", "translate RUN lines.txt --beam 1 --format json -o OUT"),
    "po": ("translation", "translate RUN in.po --beam 1 -o OUT"),
    "xliff": ("translation", "translate RUN in.xlf --beam 1 -o OUT"),
    "tmx": ("translation", "translate RUN in.tmx --target-language de --beam 1 -o OUT"),
    "prefixes": ("translation", "translate RUN lines.tsv --prefix-column -o OUT"),
    "score": ("translation", "score RUN lines.tsv -o OUT"),
    "classify": ("classifier", "classify RUN lines.txt -o OUT"),
    "tag": ("tagger", "tag RUN lines.txt -o OUT"),
    "answer": ("spans", "answer RUN asked.jsonl -o OUT"),
    "embed": ("embedder", "embed RUN lines.txt -o OUT"),
    "vectors": ("embedder", "embed RUN lines.txt -o OUT.npy"),
    "generate": ("language_model", "generate RUN ab --max-new-tokens 2 -o OUT"),
    "clean": (None, "data clean lines.tsv copies=keep -o OUT.tsv"),
    "dedupe": (None, "data dedupe lines.tsv near=null -o OUT.jsonl"),
    "mix": (None, "data mix lines.tsv lines.tsv -o OUT.tsv"),
    "report": (None, "data dedupe lines.tsv near=null -o pairs.tsv --report OUT"),
    "distill": ("translation", "augment distill RUN lines.txt -o OUT.tsv"),
    "log": (None, "data stats lines.tsv --log OUT"),
}
every_writer = pytest.mark.parametrize("command", WRITING)


def ask(command, runs, out):
    kind, words = WRITING[command]
    words = words.replace("RUN", str(runs[kind]) if kind else "").replace("OUT", str(out)).split()
    return main(words), Path(words[next(i for i, word in enumerate(words) if word.startswith(str(out)))])


@every_writer
def test_every_command_writes_through_a_link_and_keeps_the_mode(command, runs, here, capsys):
    wanted = Path(WRITING[command][1].split()[-1].replace("OUT", "link"))
    (here / "real").mkdir()
    target = here / "real" / f"kept{wanted.suffix}"
    target.write_text("")
    target.chmod(0o600)
    (here / wanted).symlink_to(target)
    code, written = ask(command, runs, "link")
    if code == 2 and command == "distill" and "no pair came of it" in capsys.readouterr().err:
        return  # a model with random weights
    assert code == 0 and written.is_symlink() and target.stat().st_size and mode(target) == 0o600
    assert listing(here / "real") == [target.name]


@every_writer
@pytest.mark.parametrize("out", ["no/such/out", "lines.txt/out"])
def test_every_command_refuses_before_the_model_is_loaded(command, out, runs, here, capsys, monkeypatch):
    monkeypatch.setattr("dragoman.checkpoint.load_model", lambda *_, **__: pytest.fail("a model is loaded"))
    monkeypatch.setattr("dragoman.checkpoint.load_reader", lambda *_, **__: pytest.fail("a model is loaded"))
    before = listing(here)
    assert ask(command, runs, out)[0] == 2
    err = capsys.readouterr().err
    assert err.startswith("dragoman: ") and err.count("\n") == 1 and out in err
    assert listing(here) == before


@pytest.mark.parametrize("name", ["out.po.gz", "out.po.zst"])
def test_a_document_is_compressed_as_its_name_says(name, runs, here, capsys):
    assert main(["translate", str(runs["translation"]), "in.po", "--beam", "1", "-o", name]) == 0
    content = (here / name).read_bytes()
    read = (
        gzip.decompress if name.endswith("gz") else lambda c: zstandard.ZstdDecompressor().decompressobj().decompress(c)
    )
    assert b'msgid "ab"' in read(content)


def test_an_export_fills_the_empty_folder_that_a_link_points_to(runs, here, capsys):
    (here / "folder").mkdir()
    (here / "link").symlink_to("folder")
    assert main(["export", str(runs["language_model"]), "--to", "huggingface", "-o", "link"]) in (0, 2)
    assert (here / "link").is_symlink() and (here / "folder").is_dir()


@pytest.mark.parametrize(
    "command",
    ["export RUN --to onnx -o OUT", "merge RUN -o OUT", "import RUN --run OUT", "data split lines.tsv -o OUT"],
)
def test_a_folder_that_cannot_be_made_is_one_line(command, runs, here, capsys):
    words = command.replace("RUN", str(runs["translation"])).replace("OUT", "lines.txt/folder").split()
    assert main(words) == 2
    assert capsys.readouterr().err == "dragoman: lines.txt/folder: " + f"{here / 'lines.txt'} is a file, not a folder\n"


@pytest.mark.parametrize("name", [".tsv", ".hidden.tsv", "...tsv"])
def test_a_test_set_whose_name_begins_with_a_dot_replaces_no_other_evaluation(name, runs, here, capsys):
    shutil.copytree(runs["translation"], here / "run", symlinks=True)
    (here / "run" / "evaluations" / "other").mkdir(parents=True)
    shutil.copy(here / "lines.tsv", here / name)
    main(["evaluate", "run", name, "--beam", "1"])
    assert (here / "run" / "evaluations" / "other").is_dir()


@pytest.mark.parametrize("name", ["../checkpoints", "..", ".", "", "a/b", "/tmp/x"])
def test_an_evaluation_replaces_no_folder_but_its_own(name, runs, here, capsys):
    shutil.copytree(runs["translation"], here / "run", symlinks=True)
    before = sorted((here / "run").rglob("*"))
    assert main(["evaluate", "run", "lines.tsv", "--name", name]) == 2
    assert "must be the name of one folder" in capsys.readouterr().err
    assert sorted((here / "run").rglob("*")) == before
