"""Start, resume or follow a run: everything that is checked before it begins. ``trainer.py`` has what happens then."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, override, to_dict
from dragoman.errors import CheckpointError, ConfigError
from dragoman.machine import choose_precision
from dragoman.snapshot import step_name
from dragoman.train.budget import Epochs
from dragoman.train.changes import changed
from dragoman.train.distributed.parallel import check
from dragoman.train.distributed.processes import SINGLE_PROCESS, SingleProcess
from dragoman.train.finished import resumable
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.task_data import FOLDER
from dragoman.train.trainer import Trainer

BUDGET = ("train.budget",)
BATCHES = (*BUDGET, "train.batch_tokens", "train.accumulate", "task.")
"""Settings that determine the length of a run, and of one whose budget is passes over the text."""
RUN_KEY = "run"
"""Key under which the first process publishes which run it is."""


def start(cfg: RunConfig, path: str | Path, *, group: SingleProcess = SINGLE_PROCESS) -> Trainer:
    """Create a new run in a new directory.

    Raises:
        ConfigError: sizes that do not fit one another, or no such device: before anything is written.
        CheckpointError: there is something at ``path`` already.
    """
    task_data_for(cfg).check(cfg)
    _check(cfg, group)
    choose_precision(cfg.train.precision, group.device(cfg.train.device))
    return _publish_run(Trainer(cfg, RunDirectory.create(path, cfg), group=group))


def resume(
    path: str | Path,
    *,
    cfg: RunConfig | None = None,
    overrides: Sequence[str] = (),
    deliberate: bool = False,
    checkpoint: str | int = "last",
    group: SingleProcess = SINGLE_PROCESS,
) -> Trainer:
    """Resume the run at ``path`` from its last checkpoint, or from the beginning if it died before the first.

    ``cfg``, the configuration it should have now (None: the one it has), and the ``overrides`` to it may differ in what
    ``changes.FREE`` lists; ``deliberate`` also allows ``changes.DELIBERATE``. Resuming from an earlier ``checkpoint``
    sets newer ones aside. The number of processes may differ from before.

    Raises:
        CheckpointError: no run there, it is being written to, its checkpoint is damaged, or the configuration differs.
    """
    directory = RunDirectory.open(path, write=True)
    try:
        content = directory.load(checkpoint) if checkpoint != "last" or directory.checkpoints() else None
        if content and "optimizer" not in content.tensors:
            raise CheckpointError(f"{path}: {checkpoint} holds weights alone: {_instead(directory)}")
        wanted = functools.reduce(override, overrides, to_dict(cfg) if cfg else directory.config)
        has_tokens = (directory.path / FOLDER).is_dir()  # before tokens are stored, any setting may change
        had = content.config if content else directory.config if has_tokens else wanted
        new_cfg, changes = changed(had, wanted, deliberate=deliberate, where=str(path))
        _check(new_cfg, group)
        group.device(new_cfg.train.device)
        epochs = isinstance(new_cfg.train.budget, Epochs)
        if content and any(change[0].startswith(BATCHES if epochs else BUDGET) for change in changes):
            content.progress["total"] = None  # recomputed from what is left of the budget
        if content and any(change[0] == "train.best_by" for change in changes):
            content.progress.update(best_loss=None, stale=0)  # the old value is of another metric
        # the run that weights were started from may be gone: they are in the checkpoint
        task_data_for(new_cfg).check(dataclasses.replace(new_cfg, start_from=None) if content else new_cfg)
        resumed = Trainer(new_cfg, directory, content=content, changes=changes, group=group)
        if content and checkpoint != "last":  # nothing is set aside by a command that is refused
            directory.rewind(directory.find(checkpoint), content.progress["best_step"])
        return _publish_run(resumed)
    except BaseException:
        directory.close()
        raise


def _instead(run: RunDirectory) -> str:
    """Return what to do in place of resuming from a checkpoint of weights alone."""
    if others := resumable(run):
        return (
            f"resume from {' or '.join(others)} (train.keep.optimizer_states sets how many can be resumed), or start "
            "another run from it (start_from)"
        )
    return "no checkpoint here can be resumed: start another run from it (start_from)"


def follow(group: SingleProcess) -> Trainer:
    """Open the run that the first process starts or resumes, in another process.

    Raises:
        ProcessLost: the first process has left instead, and reported why.
        CheckpointError: this process cannot read the run; all must see the same folders.
    """
    announcement = json.loads(group.wait_for(RUN_KEY))
    directory = RunDirectory.open(announcement["path"])
    content = None
    if announcement["progress"]:
        content = directory.load(step_name(announcement["progress"]["step"]))
        content = dataclasses.replace(content, progress=announcement["progress"])
    return Trainer(from_dict(RunConfig, announcement["config"]), directory, content=content, group=group)


def _check(cfg: RunConfig, group: SingleProcess) -> None:
    """Check settings of ``train`` against one another, the model, and the number of processes.

    Raises:
        ConfigError: settings that conflict with one another, with this model, or with so many processes.
    """
    check(cfg.train.parallel, cfg.train.optimizer, cfg.model)
    if cfg.train.accumulate % group.count and not task_data_for(cfg).rows_are_independent:
        raise ConfigError(
            f"train.accumulate: {cfg.train.accumulate}, with {group.count} processes: a batch of this task cannot be "
            "divided among them, because its pairs are compared with one another; set a multiple of the number of "
            "processes"
        )
    cfg.train.compile.check(cfg.train, cfg.model)


def _publish_run(run: Trainer) -> Trainer:
    progress = run.content.progress if run.content else None
    announcement = {"path": str(run.directory.path.resolve()), "config": to_dict(run.cfg), "progress": progress}
    run.group.publish(RUN_KEY, json.dumps(announcement))
    return run
