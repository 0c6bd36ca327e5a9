"""One of many runs that differ in little: an ordinary run directory, on text that was made ready once for all of them.

OUT/prepared/   data/   tokenizer.json        linked into each trial's directory, or copied where that cannot be
"""

import itertools
import os
import shutil
import statistics
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dragoman import durable
from dragoman.checkpoint import CONFIG, RunDirectory
from dragoman.train.budget import Steps
from dragoman.train.events import Event, Finished, Started, StepsReported, Validated
from dragoman.train.journal import Journal
from dragoman.train.recipe import Keep, RunConfig
from dragoman.train.run import Trainer, resume, start
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.task_data import FOLDER, TaskData

MEASURED = 6
"""Steps that tell how long a step takes."""


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to."""

    loss: float
    """Mean over the validation set, at the end."""
    sources: dict[str, int]
    """Tokens of each source, on either side, that it learned from."""
    seconds: float
    """Spent learning."""


@dataclass(frozen=True)
class Pace:
    """What a trial takes, in seconds."""

    around: float
    """Setting up and saving."""
    step: float
    validation: float

    def seconds(self, steps: int) -> float:
        return self.around + steps * self.step + self.validation


@dataclass(frozen=True)
class Trial:
    path: Path
    cfg: RunConfig
    """Its budget is in steps."""

    def outcome(self) -> TrialResult | None:
        """None until the last step is made, validated and saved."""
        steps = self.cfg.train.budget.total(1)
        if not any(checkpoint.step == steps for checkpoint in RunDirectory(self.path).checkpoints()):
            return None
        last = {line["kind"]: line for line in Journal(self.path / "metrics.jsonl").lines()}
        if "train" not in last or last.get("valid", {}).get("step") != steps:
            return None  # a signal came in the middle of the validation
        return TrialResult(last["valid"]["loss"], last["train"]["sources"], last["train"]["seconds"])

    def events(self, prepared: Path) -> Iterator[Event]:
        """Begin or go on, on the text of ``prepared``.

        Raises:
            KeyboardInterrupt: a signal came; all is saved.
            UserError: as ``Run.events``.
        """
        yield from self._run(prepared).events()
        if self.outcome() is None:
            raise KeyboardInterrupt

    def _run(self, prepared: Path) -> Trainer:
        run = start_or_resume(self.cfg, self.path)
        try:
            share(prepared, run.directory)
        except BaseException:
            run.directory.close()
            raise
        return run


def start_or_resume(cfg: RunConfig, path: Path) -> Trainer:
    return resume(path, cfg=cfg) if (path / CONFIG).exists() else start(cfg, path)


def bare(cfg: RunConfig, *, steps: int = 1) -> RunConfig:
    """``cfg`` of so many steps, with nothing in it but what the loss at their end depends on."""
    only = {"patience": None, "best_by": None, "samples": 0, "scored": 0, "keep": Keep(last=1)}
    return replace(cfg, train=replace(cfg.train, budget=Steps(steps=steps), validate_every=steps, **only))


# ---- text -----------------------------------------------------------------------------------------


def prepare(cfg: RunConfig, path: Path) -> Generator[Event, None, TaskData]:
    """Make the text ready in ``path``, if it is not. What fails at this leaves nothing behind.

    Raises:
        DataError, ConfigError, CheckpointError: as a run that begins.
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
    """Give ``run`` the text and the tokenizers of ``prepared``, without taking up room where the disk allows it."""
    if (run.path / FOLDER).is_dir():
        return
    for file in RunDirectory(prepared).tokenizer_files():
        durable.replace_with(run.path / file.name, lambda partial, file=file: _link(file, partial))
    with durable.folder(run.path / FOLDER) as folder:
        shutil.copytree(prepared / FOLDER, folder, copy_function=_link, dirs_exist_ok=True)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system can
        shutil.copy2(source, target)


# ---- time -----------------------------------------------------------------------------------------


def measure(cfg: RunConfig, prepared: Path, path: Path, steps: int) -> Generator[Event, None, Pace]:
    """How long a trial of ``cfg`` takes, by a few steps of one at ``path`` that is then removed."""
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
