"""What every command has: help that shows what was written, the same options, UTF-8, and clean ends."""

import io
import logging
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from test_every_command import make

from dragoman.cli import app, main, messages, standard_streams
from dragoman.cli.global_options import complete, every_command
from dragoman.cli.live_input import LiveLines, line_batches
from dragoman.cli.serve import LogFormat, start_log
from dragoman.errors import DataError

ROOT = complete(app)
PATHS = {}


def _walk(command, path):
    PATHS[" ".join(path)] = command
    for name, below in getattr(command, "commands", {}).items():
        _walk(below, (*path, name))


_walk(ROOT, ())
every_path = pytest.mark.parametrize("path", PATHS)


def words(text):
    """Letters and brackets alone: lines are broken, and boxes drawn, as a terminal is wide."""
    return re.sub(r"[\s│╭╮╰╯─]+", "", text)


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")


# ---- help ------------------------------------------------------------------------------------------


@every_path
def test_help_shows_every_word_that_was_written_and_no_type_of_a_flag(path, wide, capsys):
    assert main([*path.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert "bool" not in out.lower()
    shown = words(out)
    written = [PATHS[path].help or "", *(getattr(p, "help", None) or "" for p in PATHS[path].params if not p.hidden)]
    for text in written:
        for sentence in re.split(r"\n\n", text.replace("\\[", "[")):
            assert words(sentence) in shown, sentence


def test_square_brackets_are_seen(wide, capsys):
    assert main(["data", "clean", "--help"]) == 0
    assert "target_scripts=[latin]" in words(capsys.readouterr().out)


def test_commands_are_in_groups(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"─ {name} ─") for name in ("Train", "Use", "Examine", "Exchange", "Data and configuration")]
    assert places == sorted(places) and "─ Commands ─" not in shown


# ---- options of every command ----------------------------------------------------------------------


def test_every_command_has_the_options():
    for path, command in PATHS.items():
        assert {"--quiet", "--log", "--version"} <= {option for p in command.params for option in p.opts}, path


@pytest.mark.parametrize("path", ["", "translate", "data clean", "config show"])
def test_the_version_names_what_computes(path, capsys):
    import torch

    from dragoman import __version__

    assert main([*path.split(), "--version"]) == 0
    python = ".".join(map(str, sys.version_info[:3]))
    assert capsys.readouterr().out == f"dragoman {__version__}, torch {torch.__version__}, Python {python}\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    kinds = ("translation", "classifier", "tagger", "embedder", "language_model", "spans")
    return {name: make(name, folder / name) for name in kinds}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.tsv").write_text("ab\tb\ncd\td\n")
    return tmp_path


@pytest.mark.parametrize("place", [0, 1, 99], ids=["before the command", "behind it", "at the end"])
def test_a_quiet_command_keeps_its_remarks_to_itself_and_its_answer_is_the_same(place, runs, here, capsys):
    score = ["score", str(runs["translation"]), "lines.tsv"]
    assert main(score) == 0
    told = capsys.readouterr()
    assert main([*score[:place], "--quiet", *score[place:]]) == 0
    quiet = capsys.readouterr()
    assert "perplexity" in told.err and quiet.err == "" and quiet.out == told.out
    assert main(score) == 0 and "perplexity" in capsys.readouterr().err  # only for that command


def test_a_quiet_command_tells_its_errors(here, capsys):
    assert main(["data", "stats", "absent.tsv", "--quiet"]) == 2
    assert capsys.readouterr().err == "dragoman: absent.tsv: no such file\n"
    assert main(["data", "stats", "--quiet", "--absent"]) == 2
    assert "absent" in capsys.readouterr().err


STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", re.MULTILINE)


def test_a_log_has_all_that_is_told_with_times(runs, here, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/dragoman", "score", "two words"])  # as a shell gives it
    log = here / "all.log"
    log.write_text("before\n")
    assert main(["--log", "all.log", "score", str(runs["translation"]), "lines.tsv"]) == 0
    told = capsys.readouterr().err
    assert main(["data", "stats", "absent.tsv", "--log", "all.log"]) == 2
    first, *lines = log.read_text().splitlines()
    assert first == "before" and all(STAMP.match(line) for line in lines)
    text = STAMP.sub("", log.read_text())
    assert (
        told in text
        and "dragoman: absent.tsv: no such file\n" in text
        and text.count("$ dragoman score 'two words'\n") == 2
    )


def test_a_quiet_command_still_logs(runs, here, capsys):
    assert main(["score", str(runs["translation"]), "lines.tsv", "--quiet", "--log", "a.log"]) == 0
    assert capsys.readouterr().err == "" and "perplexity" in (here / "a.log").read_text()


@pytest.mark.parametrize("quiet", [True, False])
def test_errors_inside_a_command_are_shown_and_logged_once(quiet, runs, here, capsys):
    (here / "in").mkdir()
    for name in ("a.po", "b.po"):
        (here / "in" / name).write_text("no such thing\n")
    arguments = ["translate", str(runs["translation"]), "in", "-o", "out", "--log", "a.log"]
    assert main([*arguments, "--quiet"] if quiet else arguments) == 1
    for told in (capsys.readouterr().err, (here / "a.log").read_text()):
        assert told.count("a.po:1: ") == told.count("b.po:1: ") == 1


def test_errors_of_a_quiet_server_are_shown_and_logged_once(here, capsys):
    messages.reset()
    messages.current.quiet = True
    messages.current.keep(here / "a.log")
    server = logging.getLogger("dragoman.serve")
    before = server.handlers, server.propagate
    with messages.current.route_stderr():
        start_log(LogFormat.text)
        server.info("listening")
        server.error("reload failed")
    server.handlers, server.propagate = before
    messages.current.end()
    shown, log = capsys.readouterr().err, (here / "a.log").read_text()
    assert "listening" not in shown and shown.count("error: reload failed") == 1
    assert log.count("listening") == log.count("error: reload failed") == 1


def test_tables_are_logged_as_plain_text(here, capsys):
    assert main(["data", "stats", "lines.tsv", "--log", "a.log"]) == 0
    log = (here / "a.log").read_text()
    assert "duplicates" in log and "\x1b" not in log and "[bold]" not in log


@pytest.mark.parametrize("name", ["no/such/a.log", ".", "lines.tsv/a.log", "a.log.gz"])
def test_a_log_that_cannot_be_written_is_told_at_once(name, here, capsys):
    assert main(["data", "stats", "lines.tsv", "--log", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("dragoman: ") and captured.err.count("\n") == 1


def test_a_full_disk_ends_the_log_and_not_the_command(here, capsys):
    assert main(["data", "stats", "lines.tsv", "--log", "/dev/full"]) == 0
    assert "the log ends here: No space left" in capsys.readouterr().err


# ---- standard output -------------------------------------------------------------------------------


def shell(line, **more):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | more
    line = line.replace("dragoman", f"{sys.executable} -m dragoman")
    return subprocess.run(["bash", "-c", line], capture_output=True, env=env, timeout=120)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_is_written_is_utf_8_whatever_the_encoding_is_to_be(encoding, here):
    (here / "ä.yaml").write_text("preset: transformer-tiny\ndata: {train: [{kind: table, path: türé→.tsv}]}\n")
    done = shell("dragoman config show ä.yaml; dragoman data stats 'ö→.tsv'", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert "path: türé→.tsv\n".encode() in done.stdout
    assert done.stderr == "dragoman: ö→.tsv: no such file\n".encode()


def test_progress_in_an_ascii_locale_does_not_crash(here):
    done = shell("dragoman data stats lines.tsv", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C", FORCE_COLOR="1")
    assert done.returncode == 0 and done.stdout.decode() and done.stderr.decode()


@pytest.mark.parametrize("command", ["config schema", "--help", "--version", "data stats lines.tsv"])
def test_a_full_disk_is_one_line_and_exit_2(command, here):
    done = shell(f"dragoman {command} >/dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        b"dragoman: standard output: cannot be written to: No space left on device: make room, or write elsewhere\n"
    )


def test_closed_standard_streams_are_told_where_they_are_used(runs, here):
    (here / "many.txt").write_text("ab cd\n" * 40)
    run = runs["translation"]
    for line in (f"translate {run}", f"classify {runs['classifier']}", f"generate {runs['language_model']}"):
        done = shell(f"dragoman {line} <&-")
        assert done.returncode == 2 and done.stdout == b"" and done.stderr.count(b"\n") == 1, done.stderr
        assert done.stderr.startswith(b"dragoman: standard input: is closed: "), done.stderr
    for line in (f"translate {run} many.txt", "config schema", "config show transformer-tiny"):
        done = shell(f"dragoman {line} >&-")
        assert done.returncode == 2 and done.stderr.startswith(b"dragoman: standard output: is closed: "), done.stderr
    done = shell(f"dragoman translate {run} many.txt -o out.txt <&- >&- 2>&-")
    assert done.returncode == 0 and (here / "out.txt").read_text().count("\n") == 40


def test_who_stops_reading_is_no_mistake(here):
    done = shell("dragoman config schema | head -1; exit ${PIPESTATUS[0]}")
    assert done.returncode == 1 and done.stdout == b"{\n" and done.stderr == b""


def test_a_closed_standard_output_is_no_traceback(here):
    assert b"Traceback" not in shell("dragoman config presets >&-").stderr


# ---- standard input --------------------------------------------------------------------------------


class Pipe:
    def __init__(self):
        self.read, self.write = os.pipe()
        self.file = os.fdopen(self.read, "rb")
        self.lines = LiveLines(self.file, "standard input")

    def say(self, content):
        os.write(self.write, content)

    def end(self):
        os.close(self.write)


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.file.close()


def test_a_line_is_answered_while_the_next_is_awaited(pipe):
    batches = line_batches(pipe.lines)
    pipe.say(b"one\n")
    began = time.monotonic()
    assert next(batches) == ["one"] and time.monotonic() - began < 1
    pipe.say(b"two\nthr")  # the third is not whole
    assert next(batches) == ["two"]
    pipe.say(b"ee\r\n\nfour")
    pipe.end()
    assert list(batches) == [["three", "", "four"]]


def test_lines_that_come_fast_are_answered_together(pipe):
    pipe.say(b"x\n" * 5000)
    pipe.end()
    assert list(map(len, line_batches(pipe.lines, most=4096))) == [4096, 904]


def test_lines_that_keep_coming_wait_a_bounded_time(pipe, monkeypatch):
    monkeypatch.setattr("dragoman.cli.live_input.LONGEST", 0.1)
    batches, said = line_batches(pipe.lines), 0

    def steadily(seconds, before=pipe.lines.raw.ready):
        nonlocal said
        said += 1
        time.sleep(0.01)
        pipe.say(b"next\n")
        return before(seconds)

    monkeypatch.setattr(pipe.lines.raw, "ready", steadily)
    pipe.say(b"first\n")
    assert 2 <= len(next(batches)) <= 20
    pipe.end()


def test_a_line_longer_than_a_pipe_is_one(pipe):
    import threading

    writer = threading.Thread(target=lambda: (pipe.say(b"y" * 300_000 + b"\nz"), pipe.end()))
    writer.start()
    assert list(map(len, pipe.lines)) == [300_000, 1]
    writer.join()


def test_bytes_that_are_no_text_are_refused_with_their_line(pipe):
    pipe.say(b"one\n\xff\n")
    pipe.end()
    with pytest.raises(DataError, match="standard input:2: not UTF-8"):
        list(pipe.lines)


ANSWERS = {
    "translate": ("translation", "--beam 1", b"ab\n"),
    "translate --prefix-column": ("translation", "", b"ab\tc\n"),
    "classify": ("classifier", "", b"ab\n"),
    "tag": ("tagger", "", b"ab\n"),
    "embed": ("embedder", "", b"ab\n"),
    "generate": ("language_model", "--max-new-tokens 2", b"ab\n"),
    "answer": ("spans", "", b'{"context": "ab cd", "question": "ab"}\n'),
}


@pytest.mark.parametrize("command", ANSWERS)
def test_a_command_answers_a_line_before_the_next_is_there(command, runs, monkeypatch, capfd):
    kind, options, line = ANSWERS[command]
    read, write = os.pipe()
    os.write(write, line)
    answered = []

    def more(self, seconds):
        if seconds is None:  # about to wait for a line
            answered.append(capfd.readouterr().out)
            if len(answered) == 2:
                os.close(write)
        return wait(self, seconds)

    from dragoman.cli import live_input

    wait = live_input._RawLines._wait
    monkeypatch.setattr(live_input._RawLines, "_wait", more)
    with os.fdopen(read, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        assert main([*command.split(), str(runs[kind]), *options.split()]) == 0
    before_the_first, before_the_second = answered
    assert before_the_first == "" and before_the_second.endswith("\n")


def test_rows_are_counted_on_from_batch_to_batch(runs, monkeypatch, capsys):
    monkeypatch.setattr("dragoman.cli.live_input.BATCH", 2)
    import json

    from dragoman.cli import live_input

    monkeypatch.setattr(live_input, "line_batches", lambda lines, most=2: LiveLines.grouped(lines, lines, 2))
    read, write = os.pipe()
    os.write(write, b"a\nb\nc\nd\ne\n")
    os.close(write)
    with os.fdopen(read, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        assert main(["classify", str(runs["classifier"]), "--format", "json"]) == 0
    assert [json.loads(line)["row"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3, 4, 5]


# ---- messages --------------------------------------------------------------------------------------


def test_a_live_display_is_not_in_the_log(here):
    from rich.progress import Progress

    from dragoman.cli.terminal import console

    messages.reset()
    messages.current.keep(here / "a.log")
    try:
        screen = console()
        screen.print("[bold]seen[/bold] \\[as it is]")
        log = (here / "a.log").read_text()
        with Progress(console=Console(file=io.StringIO(), force_terminal=True)) as bar:
            bar.add_task("working", total=3)
        assert "seen [as it is]" in log and "working" not in (here / "a.log").read_text()
    finally:
        messages.current.end()


def test_what_a_terminal_overwrites_is_not_in_the_log(here):
    log = messages.MessageLog(here / "a.log")
    log.write("10%\r50%\r100%\nhalf")
    log.write(" and half\n")
    log.file.close()
    assert STAMP.sub("", (here / "a.log").read_text()) == "100%\nhalf and half\n"


def test_streams_that_are_closed_or_replaced_are_left_alone(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None if name == "stdin" else io.StringIO())
    standard_streams.use_utf8()
    assert standard_streams.finish(0) == 0


def test_every_command_is_walked():
    assert len(list(every_command(ROOT))) == len(PATHS)
