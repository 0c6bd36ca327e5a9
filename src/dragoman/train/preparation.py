"""Preparation of a run before its first step: its data, and the settings that only data and machine determine.

The first process does the work; the others wait for it, and take over its settings.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, to_dict
from dragoman.train.distributed.processes import SingleProcess
from dragoman.train.events import Event
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.task_data import FOLDER, TaskData

PREPARED, FILLED = "prepared", "filled"
"""Keys that the first process publishes once the data is prepared, and with the complete configuration."""


def prepare_data(cfg: RunConfig, directory: RunDirectory, group: SingleProcess) -> Iterator[Event]:
    """Create the token stores, if they do not exist. A new run that fails here leaves nothing behind."""
    if not group.first:
        group.wait_for(PREPARED)
        return
    yield from task_data_for(cfg).prepare(cfg, directory)
    group.publish(PREPARED)


@contextmanager
def nothing_left_behind(directory: RunDirectory, group: SingleProcess) -> Iterator[None]:
    """Remove what a new run has written where the block fails, so that it can be started again."""
    new = group.first and not directory.checkpoints() and not (directory.path / FOLDER).exists()
    try:
        yield
    except BaseException:
        if new:
            if (directory.path / FOLDER).exists():
                durable.remove(directory.path / FOLDER)
            directory.discard()
        raise


def complete_config(cfg: RunConfig, task_data: TaskData, group: SingleProcess) -> RunConfig:
    """Return ``cfg`` with all open settings decided by the first process: processes may measure differently."""
    if not group.first:
        return from_dict(RunConfig, json.loads(group.wait_for(FILLED)))
    complete = task_data.fill(cfg)
    group.publish(FILLED, json.dumps(to_dict(complete)))
    return complete
