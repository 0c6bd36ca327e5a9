"""Planning before the first step: predict what a run needs, and refuse what cannot fit.

Only ``dragoman train`` plans. A run with a plan and one without are equal to the bit.
"""

import dataclasses
from collections.abc import Iterator

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.json_files import json_text
from dragoman.plan.measured import size
from dragoman.plan.prediction import RunPrediction
from dragoman.plan.reconcile import PREDICTION
from dragoman.train.compiling import Off
from dragoman.train.distributed.processes import SingleProcess
from dragoman.train.events import Event, Predicted
from dragoman.train.failure import resume_command
from dragoman.train.memory import OutOfMemory
from dragoman.train.prediction import RunCounter, predict_run
from dragoman.train.progress import RunProgress
from dragoman.train.recipe import RunConfig
from dragoman.train.sizing import advice
from dragoman.train.tasks.task_data import StepPlan, TaskData


class NoPlanner:
    """Planner that plans nothing."""

    def events(
        self,
        cfg: RunConfig,
        data: TaskData,
        plan: StepPlan,
        directory: RunDirectory,
        group: SingleProcess,
        progress: RunProgress,
    ) -> Iterator[Event]:
        """Yield the prediction of the run, which has made this ``progress``."""
        yield from ()


class Planner(NoPlanner):
    """Predicts a run whose settings are complete, before its model is built.

    Args:
        force: start although memory will not suffice.
    """

    def __init__(self, *, force: bool = False):
        self.force = force

    def events(
        self,
        cfg: RunConfig,
        data: TaskData,
        plan: StepPlan,
        directory: RunDirectory,
        group: SingleProcess,
        progress: RunProgress,
    ) -> Iterator[Event]:
        """Yield the prediction, which is also written to the run directory.

        Raises:
            OutOfMemory: the run cannot fit.
        """
        if not group.first or not isinstance(cfg.train.compile, Off):
            return  # a compiled program plans its own memory
        device = group.device(cfg.train.device)
        try:
            prediction, counter = predict_run(cfg, data, plan, device, group.count, progress, group.local_count)
        except (NotImplementedError, RuntimeError):  # shapes alone do not tell: the work depends on values
            return
        write(directory, prediction)
        # weights that an earlier run gives may be fewer than the model's, as with adapters
        if not prediction.fits and not self.force and cfg.start_from is None:
            raise OutOfMemory(refusal(prediction, counter, directory, group))
        yield Predicted(prediction, advice(cfg, data, prediction))


def refusal(prediction: RunPrediction, counter: RunCounter, directory: RunDirectory, group: SingleProcess) -> str:
    """Return why the run is not started, and the nearest settings that fit."""
    found = counter.nearest_fit(prediction)
    each = f" for each of {group.count} processes" if group.count > 1 else ""
    largest = max(prediction.parts, key=prediction.parts.__getitem__)
    needs = (
        f"this run needs {size(prediction.memory)} of memory{each}, {size(prediction.parts[largest])} of them for "
        f"{largest}, and {size(prediction.available)} are free{each}"
    )
    command = resume_command(directory.path, group.option)
    if found.nearest is None:
        return (
            f"{needs}: no smaller batch fits, the least found is {size(found.memory)}: take a smaller model; "
            f"{command} --force starts it nevertheless"
        )
    return (
        f"{needs}; {size(found.memory)} suffice with {found.nearest.settings(found.wanted)}: "
        f"{command} --deliberate {found.nearest.settings(found.wanted)} (or --force)"
    )


def write(directory: RunDirectory, prediction: RunPrediction) -> None:
    """Write the prediction into the run directory."""
    text = json_text(dataclasses.asdict(prediction), indent=1) + "\n"
    durable.replace(directory.path / PREDICTION, text.encode())
