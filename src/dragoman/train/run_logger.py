"""Log of a run in its directory: checkpoints, journals, and the page that shows them.

Journals and checkpoints agree: journal lines of steps after the checkpoint are dropped when the run resumes there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dragoman.checkpoint import RunDirectory
from dragoman.errors import CheckpointError
from dragoman.journal import Journal
from dragoman.plan.measured import note
from dragoman.snapshot import step_name
from dragoman.train.changes import Change
from dragoman.train.events import Finished, Saved, StepsReported, Validated
from dragoman.train.finished import drop_optimizer_states, kept
from dragoman.train.forecast import Forecast, Forecasts
from dragoman.train.progress import RunProgress
from dragoman.train.recipe import Keep, RunConfig
from dragoman.train.report import page as report

Tensors = Mapping[str, Mapping[str, Tensor]]


class NullLogger:
    """Logger of every process but the first: it writes nothing."""

    def __init__(self, directory: RunDirectory):
        self.directory = directory

    def config(self, cfg: RunConfig) -> None: ...

    def rewind(self, progress: RunProgress, budget: float | None) -> None:
        """Drop journal lines of steps and validations after the checkpoint, except forecasts that will be repeated."""

    def forecast(self, progress: RunProgress, budget: float) -> Forecast | None:
        """Return the forecast that is due after this step; None where none is."""

    def change(self, step: int, change: Change) -> None: ...

    def learned(self, seen: StepsReported) -> None: ...

    def measured(self, values: dict[str, Any]) -> None:
        """Note what training was measured to need."""

    def validated(self, seen: Validated) -> None: ...

    def page(self) -> None: ...

    def close(self, end: Finished, keep: Keep) -> Finished:
        """Write the page; for a complete run, also remove what is needed neither to resume nor to use it, and report
        that."""
        return end

    def save(
        self, progress: RunProgress, tensors: Tensors, config: Mapping[str, Any], keep: Keep, *, best: bool
    ) -> Saved:
        """Write a checkpoint, and remove those that need not be kept.

        Raises:
            CheckpointError: it cannot be written; all others are unchanged.
        """
        return Saved(progress.step, self.directory.folder / step_name(progress.step), best)


class RunLogger(NullLogger):
    """Logger of the first process: writes everything but the data and the tokenizers, which the task prepares."""

    def __init__(self, directory: RunDirectory):
        super().__init__(directory)
        self.metrics, self.samples = (Journal(directory.path / f"{name}.jsonl") for name in ("metrics", "samples"))
        self.forecasts = Forecasts(directory)

    def config(self, cfg: RunConfig) -> None:
        self.directory.write_config(cfg)

    def rewind(self, progress: RunProgress, budget: float | None) -> None:
        step, validated = progress.step, progress.validated
        self.forecasts.reopen(step, budget)
        self.metrics.rewind(lambda line: line["step"] <= (validated if line["kind"] == "valid" else step))
        self.samples.rewind(lambda line: line["step"] <= validated)

    def forecast(self, progress: RunProgress, budget: float) -> Forecast | None:
        return self.forecasts.after(budget, progress.forecast, progress.step, progress.seconds)

    def change(self, step: int, change: Change) -> None:
        path, old, new = change
        self.metrics.append({"kind": "change", "step": step, "path": path, "from": old, "to": new})

    def learned(self, seen: StepsReported) -> None:
        self.metrics.append({"kind": "train"} | dataclasses.asdict(seen))

    def measured(self, values: dict[str, Any]) -> None:
        note(self.directory.path, "training", values)

    def validated(self, seen: Validated) -> None:
        row = dataclasses.asdict(seen)
        self.samples.append({"step": seen.step, "samples": row.pop("samples")})
        self.metrics.append({"kind": "valid"} | row)
        self.page()

    def page(self) -> None:
        report.write(self.directory)

    def close(self, end: Finished, keep: Keep) -> Finished:
        self.page()
        if not end.complete:
            return end
        try:
            drop_optimizer_states(self.directory, keep=keep.optimizer_states)
        except CheckpointError as error:  # the run is complete and nothing is lost
            return dataclasses.replace(end, kept=str(error))
        return dataclasses.replace(end, kept=kept(self.directory))

    def save(
        self, progress: RunProgress, tensors: Tensors, config: Mapping[str, Any], keep: Keep, *, best: bool
    ) -> Saved:
        self.metrics.flush()
        self.samples.flush()
        self.forecasts.flush()
        written = self.directory.save(
            progress.step, tensors=tensors, progress=dataclasses.asdict(progress), config=config, best=best
        )
        self.directory.prune(keep=keep.last, every=keep.every)
        return Saved(progress.step, written.path, best)
