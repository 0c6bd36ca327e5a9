"""One of many runs that differ in little: an ordinary run directory, on text that was prepared once for all of them.

OUT/prepared/   data/   tokenizer.json        linked into each trial's directory, or copied where links fail
"""

import itertools
import os
import shutil
import statistics
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dragoman import durable
from dragoman.checkpoint import CONFIG, RunDirectory
from dragoman.journal import Journal
from dragoman.train.budget import Steps
from dragoman.train.events import Event, Finished, Started, StepsReported, Validated
from dragoman.train.recipe import Keep, RunConfig
from dragoman.train.run import Trainer, resume, start
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.task_data import FOLDER, TaskData

MEASURED = 6
"""Steps over which the time of a step is measured."""


BARE: dict[str, Any] = {"patience": None, "best_by": None, "samples": 0, "scored": 0, "keep": Keep(last=1)}
"""Settings of ``train`` that leave out whatever no figure depends on."""


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial."""

    loss: float
    """Mean validation loss at the end."""
    sources: dict[str, int]
    """Tokens of each source, on either side, that it learned from."""
    seconds: float
    """Time spent learning."""


@dataclass(frozen=True)
class Pace:
    """Expected times of a trial's parts, in seconds."""

    around: float
    """Time to set up and save."""
    step: float
    validation: float

    def seconds(self, steps: int) -> float:
        return self.around + steps * self.step + self.validation


@dataclass(frozen=True)
class Trial:
    """A run of the comparison."""

    path: Path
    cfg: RunConfig
    """Configuration with a budget in steps."""

    def outcome(self) -> TrialResult | None:
        """Return the result; None until the last step is made, validated and saved."""
        steps = self.cfg.train.budget.total(1)
        if not any(checkpoint.step == steps for checkpoint in RunDirectory(self.path).checkpoints()):
            return None
        last = {line["kind"]: line for line in Journal(self.path / "metrics.jsonl").lines()}
        if "train" not in last or last.get("valid", {}).get("step") != steps:
            return None  # a signal came in the middle of the validation
        return TrialResult(last["valid"]["loss"], last["train"]["sources"], last["train"]["seconds"])

    def events(self, prepared: Path) -> Iterator[Event]:
        """Start or resume the trial, on the text of ``prepared``.

        Raises:
            KeyboardInterrupt: a signal came; all is saved.
            UserError: see ``Trainer.events``.
        """
        yield from on_prepared(self.cfg, self.path, prepared).events()
        if self.outcome() is None:
            raise KeyboardInterrupt


def on_prepared(cfg: RunConfig, path: Path, prepared: Path) -> Trainer:
    """Resume the run at ``path``, or start it there, on the text of ``prepared``."""
    run = start_or_resume(cfg, path)
    try:
        share(prepared, run.directory)
    except BaseException:
        run.directory.close()
        raise
    return run


def start_or_resume(cfg: RunConfig, path: Path) -> Trainer:
    """Resume the run at ``path``, or start it there."""
    return resume(path, cfg=cfg) if (path / CONFIG).exists() else start(cfg, path)


def bare(cfg: RunConfig, *, steps: int = 1) -> RunConfig:
    """Return ``cfg`` with ``steps`` steps and nothing but what the final loss depends on."""
    return replace(cfg, train=replace(cfg.train, budget=Steps(steps=steps), validate_every=steps, **BARE))


# ---- text -----------------------------------------------------------------------------------------


def prepare(cfg: RunConfig, path: Path) -> Generator[Event, None, TaskData]:
    """Prepare the text in ``path``, if it is not there. A failure leaves nothing behind.

    Raises:
        DataError, ConfigError, CheckpointError: see ``Trainer.prepare``.
    """
    run = start_or_resume(cfg, path)
    try:
        yield from run.prepare()
    finally:
        run.directory.close()
        if path.parent.exists() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    return task_data_for(cfg).open(cfg, run.directory)


def share(prepared: Path, run: RunDirectory) -> None:
    """Give ``run`` the text and the tokenizers of ``prepared``, as hard links where the file system allows."""
    if (run.path / FOLDER).is_dir():
        return
    for file in RunDirectory(prepared).tokenizer_files():
        durable.replace_with(run.path / file.name, lambda partial, file=file: _link(file, partial))
    with durable.folder(run.path / FOLDER) as folder:
        shutil.copytree(prepared / FOLDER, folder, copy_function=_link, dirs_exist_ok=True)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has hard links
        shutil.copy2(source, target)


# ---- time -----------------------------------------------------------------------------------------


def measure(cfg: RunConfig, prepared: Path, path: Path, steps: int) -> Generator[Event, None, Pace]:
    """Measure the time of a trial of ``cfg`` by a few steps of one at ``path`` that is then removed."""
    steps = min(steps, MEASURED)
    cfg = bare(replace(cfg, train=replace(cfg.train, report_every=1)), steps=steps)
    shutil.rmtree(path, ignore_errors=True)
    at, ends, began = {}, [0.0], time.perf_counter()
    try:
        for event in Trial(path, cfg).events(prepared):
            yield event
            at[type(event)] = time.perf_counter() - began
            if isinstance(event, StepsReported):
                ends.append(event.seconds)
    finally:
        shutil.rmtree(path, ignore_errors=True)
    taken = [after - before for before, after in itertools.pairwise(ends)]
    around = at[Started] + at[Finished] - at[Validated]
    return Pace(around, statistics.median(taken[1:] or taken), at[Validated] - at[StepsReported])
