"""Trials one after the other in this process, or several at a time in processes of their own.

Processes share nothing: each trial writes its result to the disk, where it is looked for.
"""

import multiprocessing
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from dragoman.compare.study_trial import StudyTrial
from dragoman.errors import DataError, UserError
from dragoman.train.events import Event

INTERRUPTED, MISTAKE = 130, 2
"""Exit codes of a process whose trial was interrupted, and of one that met an error of the user's."""
_POLL = 1.0


@dataclass(frozen=True)
class TrialStarted:
    """A trial begins."""

    trial: StudyTrial


@dataclass(frozen=True)
class TrialDone:
    """A trial is over, and its result on the disk."""

    trial: StudyTrial
    seconds: float


class TrialWorkers(ABC):
    """Where trials run."""

    @abstractmethod
    def run(self, trials: Sequence[StudyTrial]) -> Iterator[Event | TrialStarted | TrialDone]:
        """Run trials that are not done; yield what happens.

        Raises:
            KeyboardInterrupt: a signal came; all is saved.
            UserError: as ``StudyTrial.events``, or the workers cannot be reached.
        """

    def close(self) -> None:
        """Leave what is held between runs."""
        return


@dataclass(frozen=True)
class LocalTrials(TrialWorkers):
    """This process, or several processes of this machine."""

    processes: int = 1
    """Trials at a time."""

    def run(self, trials: Sequence[StudyTrial]) -> Iterator[Event | TrialStarted | TrialDone]:
        if self.processes > 1 and len(trials) > 1:
            yield from _Pool(trials, self.processes).events()
            return
        for trial in trials:
            began = time.monotonic()
            yield TrialStarted(trial)
            yield from trial.events()
            yield TrialDone(trial, time.monotonic() - began)


@dataclass
class _Running:
    process: BaseProcess
    trial: StudyTrial
    answers: Any
    began: float


class _Pool:
    def __init__(self, trials: Sequence[StudyTrial], processes: int):
        self.waiting, self.processes = list(trials), processes
        self.running: list[_Running] = []
        self.context = multiprocessing.get_context("spawn")  # a fork would copy locks that torch's threads hold
        self.threads = max(1, torch.get_num_threads() // processes)

    def events(self) -> Iterator[TrialStarted | TrialDone]:
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.processes:
                    yield self._begin(self.waiting.pop(0))
                wait([one.process.sentinel for one in self.running], timeout=_POLL)
                for one in [one for one in self.running if not one.process.is_alive()]:
                    self.running.remove(one)
                    yield self._ended(one)
        finally:
            self._stop()

    def _begin(self, trial: StudyTrial) -> TrialStarted:
        receiving, sending = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_run, args=(trial, self.threads, sending))
        process.start()
        sending.close()
        self.running.append(_Running(process, trial, receiving, time.monotonic()))
        return TrialStarted(trial)

    def _ended(self, one: _Running) -> TrialDone:
        one.process.join()
        code = one.process.exitcode
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code == MISTAKE and one.answers.poll():
            raise DataError(one.answers.recv())
        if code or one.trial.done() is None:
            raise RuntimeError(f"{one.trial.contestant}, seed {one.trial.seed}: its process ended with code {code}")
        return TrialDone(one.trial, time.monotonic() - one.began)

    def _stop(self) -> None:
        """Ask trials that still run to save and end, and wait for them."""
        for one in self.running:
            one.process.terminate()
        for one in self.running:
            one.process.join()


def _run(trial: StudyTrial, threads: int, answers: Any) -> None:
    """Run a trial in a process of its own."""
    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which asks each child once
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for _ in trial.events(alone=True):
            pass
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except UserError as error:
        answers.send(str(error))
        raise SystemExit(MISTAKE) from None
