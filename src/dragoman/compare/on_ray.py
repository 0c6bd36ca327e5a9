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
from dragoman.compare.workers import TrialDone, TrialStarted, TrialWorkers
from dragoman.errors import DataError, UserError

_TRIES = 3
"""How often a trial is started anew after its worker was lost."""


class RayTrials(TrialWorkers):
    """Tasks of a cluster, which is joined with the first trial and left with the study.

    Args:
        address: of the cluster; see ``cluster.connect``.
        processes: trials at a time; None for as many as there are processors.
        stop: file that asks trials to end, on a disk that all machines share.
    """

    def __init__(self, address: str, processes: int | None, stop: Path):
        self.address, self.processes, self.stop = address, processes, stop
        self.ray: Any = None
        self.most = 0
        """Trials at a time, once the cluster is joined."""

    def run(self, trials: Sequence[StudyTrial]) -> Iterator[TrialStarted | TrialDone]:
        ray: Any = self._joined() if trials else None
        waiting, running = list(trials), dict[Any, tuple[StudyTrial, float]]()
        try:
            while waiting or running:
                while waiting and len(running) < self.most:
                    trial = waiting.pop(0)
                    task = ray.remote(num_cpus=1, max_retries=_TRIES)(_finish)
                    running[task.remote(trial, self.stop)] = trial, time.monotonic()
                    yield TrialStarted(trial)
                ready, _ = ray.wait(list(running))
                for expected in ready:
                    trial, began = running.pop(expected)
                    if message := ray.get(expected):
                        raise DataError(message)
                    yield TrialDone(trial, time.monotonic() - began)
        finally:
            self._end(list(running))

    def _joined(self) -> Any:
        """Return the module ``ray``, connected."""
        if self.ray is None:
            self.ray, self.most = connect(self.address, self.processes)
            self.stop.unlink(missing_ok=True)
        return self.ray

    def _end(self, running: list[Any]) -> None:
        """Ask trials that still run to save and end, and wait for them."""
        if running:
            self.stop.touch()
            self.ray.wait(running, num_returns=len(running))
            self.stop.unlink(missing_ok=True)

    def close(self) -> None:
        if self.ray is not None:
            self.ray.shutdown()
            self.ray = None


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
