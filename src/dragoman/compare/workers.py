"""Trials one after the other in this process, several at a time in processes of their own, or on a cluster.

Processes share nothing: each trial writes its result to the disk, where it is looked for.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from dragoman.compare.study_trial import StudyTrial
from dragoman.compare.trial_events import TrialDone, TrialStarted
from dragoman.errors import DataError, UserError
from dragoman.train.events import Event

INTERRUPTED, MISTAKE = 130, 2
"""Exit codes of a process whose trial was interrupted, and of one that met an error of the user's."""
_POLL = 1.0


@dataclass(frozen=True)
class Workers:
    """Where trials run."""

    processes: int | None = None
    """Trials at a time; None for one, or on a cluster for as many as it has processors."""
    ray: str | None = None
    """Address of a Ray cluster; None for this machine."""
    stop: Path = Path("stop")
    """File that asks trials on a cluster to end."""


def run_trials(trials: Sequence[StudyTrial], workers: Workers) -> Iterator[Event | TrialStarted | TrialDone]:
    """Run trials; yield what happens.

    Args:
        trials: those that are not done.
        workers: where they run.

    Raises:
        KeyboardInterrupt: a signal came; all is saved.
        UserError: as ``StudyTrial.events``, or there is no such cluster.
    """
    if workers.ray is not None:
        from dragoman.compare.on_ray import RayTrials

        if trials:
            yield from RayTrials(trials, workers.stop, workers.ray, workers.processes).events()
        return
    processes = workers.processes or 1
    if processes < 2 or len(trials) < 2:
        for trial in trials:
            began = time.monotonic()
            yield TrialStarted(trial)
            yield from trial.events()
            yield TrialDone(trial, time.monotonic() - began)
        return
    yield from _Pool(trials, processes).events()


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
