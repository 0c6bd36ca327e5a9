"""Trials as tasks of a Ray cluster.

Trials write to the folder of their study, which all machines must find under the same path, as they must the data. A
trial whose machine is lost is started anew elsewhere, and goes on from its last checkpoint. A file in that folder asks
trials to save and end: cancelling a task while it ends aborts the whole program in some versions of Ray.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from dragoman.cluster import connect
from dragoman.compare.study_trial import StudyTrial
from dragoman.compare.trial_events import TrialDone, TrialStarted
from dragoman.errors import DataError, UserError

_TRIES = 3
"""How often a trial is started anew after its worker was lost."""


class RayTrials:
    """The trials of a study, as many at a time as the cluster has processors, or as were asked for.

    Args:
        trials: those that are not done.
        stop: file that asks trials to end, on a disk that all machines share.
        address: of the cluster; see ``cluster.connect``.
        processes: trials at a time; None for as many as there are processors.

    Raises:
        ConfigError: see ``cluster.connect``.
    """

    def __init__(self, trials: Sequence[StudyTrial], stop: Path, address: str, processes: int | None):
        self.waiting, self.stop = list(trials), stop
        self.ray, self.most = connect(address, processes)
        self.running: dict[Any, tuple[StudyTrial, float]] = {}
        """Trial and start of each task."""

    def events(self) -> Iterator[TrialStarted | TrialDone]:
        """Run the trials; yield what happens.

        Raises:
            KeyboardInterrupt: a signal came; all is saved.
            UserError: as ``StudyTrial.events``.
        """
        task = self.ray.remote(num_cpus=1, max_retries=_TRIES)(_finish)
        self.stop.unlink(missing_ok=True)
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.most:
                    trial = self.waiting.pop(0)
                    self.running[task.remote(trial, self.stop)] = trial, time.monotonic()
                    yield TrialStarted(trial)
                ready, _ = self.ray.wait(list(self.running))
                for expected in ready:
                    trial, began = self.running.pop(expected)
                    if message := self.ray.get(expected):
                        raise DataError(message)
                    yield TrialDone(trial, time.monotonic() - began)
        finally:
            self._end()

    def _end(self) -> None:
        """Ask trials that still run to save and end, wait for them, and leave the cluster."""
        if self.running:
            self.stop.touch()
            self.ray.wait(list(self.running), num_returns=len(self.running))
            self.stop.unlink(missing_ok=True)
        self.ray.shutdown()


def _finish(trial: StudyTrial, stop: Path) -> str:
    """Run a trial in a worker until it ends or is asked to; return the error of the user's, if there is one."""
    torch.set_num_threads(1)
    try:
        for _ in trial.events(alone=True):
            if stop.exists():
                signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pass  # all is saved
    except UserError as error:
        return str(error)
    return ""
