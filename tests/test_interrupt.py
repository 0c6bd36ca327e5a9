"""A signal before the first step: a new run leaves nothing, one that is prepared goes on later."""

import os
import signal
from itertools import islice
from threading import Event

import pytest
import tiny_run
from tiny_run import outcome

from dragoman.cli import main
from dragoman.text.tokens.training import train_interruptibly
from dragoman.train.events import Finished
from dragoman.train.interrupt import as_ctrl_c
from dragoman.train.run import resume, start
from dragoman.train.tasks import translation


@pytest.fixture
def pairs(tmp_path):
    return tiny_run.write_pairs(tmp_path / "pairs.tsv")


def interrupted(monkeypatch, owner, name, number):
    """``owner.name`` is interrupted when it is called."""
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **more: (signal.raise_signal(number), real(*given, **more))[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_preparing_leaves_nothing_of_a_new_run(pairs, tmp_path, monkeypatch, number):
    before = signal.getsignal(number)
    interrupted(monkeypatch, translation, "_train_tokenizers", number)
    *_, end = start(tiny_run.config(pairs), tmp_path / "run").events()
    assert end == Finished(0, "stopped before the first step; nothing is left of it", False)
    assert not (tmp_path / "run").exists() and signal.getsignal(number) == before


def test_ctrl_c_is_heeded_where_a_shell_had_it_ignored(pairs, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as it is for what a script starts with &
    try:
        interrupted(monkeypatch, translation, "_train_tokenizers", signal.SIGINT)
        *_, end = start(tiny_run.config(pairs), tmp_path / "run").events()
        assert not end.complete and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_after_preparing_leaves_a_run_that_goes_on(pairs, tmp_path, monkeypatch):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupted(patch, translation.TranslationTaskData, "plan", signal.SIGTERM)
        *_, end = start(tiny_run.config(pairs), path).events()
    assert end.reason == "stopped before the first step" and end.command == f"dragoman train {path} --resume"
    list(resume(path).events())
    list(start(tiny_run.config(pairs), tmp_path / "whole").events())
    assert outcome(path) == outcome(tmp_path / "whole")


def test_the_command_ends_as_after_any_interruption(pairs, tmp_path, monkeypatch, capsys):
    interrupted(monkeypatch, translation, "_train_tokenizers", signal.SIGTERM)
    few = "data.hold_out={test: 3, valid: 10, near: null}"
    assert main(["train", "--pairs", str(pairs), "--run", str(tmp_path / "run"), few]) == 130
    assert "Stopped before the first step; nothing is left of it." in capsys.readouterr().out


def test_ctrl_c_is_heard_while_the_library_learns_a_vocabulary():
    """It does not look at signals itself, and may be at work for minutes."""
    heard, read = Event(), []

    class Library:
        def train_from_iterator(self, chunks, trainer):
            read.extend(text for chunk in chunks for text in chunk)
            os.kill(os.getpid(), signal.SIGINT)
            assert heard.wait(60)

    with as_ctrl_c(), pytest.raises(KeyboardInterrupt):
        train_interruptibly(Library(), None, (str(i) for i in range(2_500)))
    heard.set()
    assert read == [str(i) for i in range(2_500)]


@pytest.mark.parametrize("chunks_read", [0, 3, 100])
def test_what_fails_in_the_library_fails_here_however_much_it_has_read(chunks_read):
    class Library:
        def train_from_iterator(self, chunks, trainer):
            list(islice(chunks, chunks_read))
            raise OSError("of the library")

    with pytest.raises(OSError, match="of the library"):
        train_interruptibly(Library(), None, ["text"] * 20_000)
