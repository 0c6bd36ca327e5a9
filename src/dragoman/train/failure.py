"""Failures that end a run early, and how the user resumes from there."""

import errno
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dragoman.checkpoint import RunDirectory
from dragoman.errors import CheckpointError, UserError
from dragoman.plan.measured import size
from dragoman.plan.reconcile import prediction_of
from dragoman.train.distributed.processes import SingleProcess
from dragoman.train.loop import Diverged
from dragoman.train.memory import OutOfMemory, is_out_of_memory
from dragoman.train.recipe import TrainConfig


@dataclass(frozen=True)
class TrainingFailure:
    """A failure with its remedy."""

    error: Callable[[str], UserError]
    """Constructor of the error to raise, called with its text."""
    description: str
    settings: str = ""
    """Settings to change when resuming."""
    weights_valid: bool = False
    """True if the weights are those after the last step, and worth saving."""

    def to_error(self, directory: RunDirectory, group: SingleProcess) -> UserError:
        """Return the error, with the command that resumes from the last checkpoint."""
        command = resume_command(directory.path, group.option)
        if self.settings:
            command += f" --deliberate {self.settings}"
        if checkpoints := directory.checkpoints():
            name = checkpoints[-1].path.name
            return self.error(f"{self.description}. {name} is good; to resume from there: {command}")
        if self.settings:
            start = f"remove {directory.path} and start again, with {self.settings}"
        else:
            start = f"to begin again with the prepared data: {command}"
        return self.error(f"{self.description}. Nothing was saved yet: {start}")


def failure(
    error: Exception,
    step: int,
    train: TrainConfig,
    directory: RunDirectory,
    group: SingleProcess,
    held: int | None = None,
) -> TrainingFailure | None:
    """Return the failure that ``error`` means after ``step`` steps; None if it explains itself or is a bug. ``held`` is
    the most memory that the run held."""
    if isinstance(error, Diverged):
        return TrainingFailure(Diverged, str(error), "train.schedule.peak=...")
    if isinstance(error, OutOfMemory):
        settings = smaller_batches(train) if error.divisible else "train.recompute=true"
        text = f"step {step + 1}: {error}{_figures(directory, held)}"
        return TrainingFailure(OutOfMemory, text, settings, weights_valid=True)
    if is_out_of_memory(error):
        return TrainingFailure(
            OutOfMemory,
            f"step {step + 1}: out of memory beside the batch itself{_figures(directory, held)}",
            smaller_batches(train),
        )
    if group.is_process_lost(error):
        return TrainingFailure(group.process_lost_error, f"step {step + 1} is not finished", weights_valid=True)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or directory.path
        return TrainingFailure(
            lambda _: CheckpointError(f"{where}: {error.strerror}: make room and go on with --resume"), ""
        )
    return None


def _figures(directory: RunDirectory, held: int | None) -> str:
    """Return what was predicted and what the run held, in brackets; nothing where neither is known."""
    predicted = prediction_of(directory.path).get("memory")
    known = [f"predicted: {size(predicted)}" if predicted else "", f"held: {size(held)}" if held else ""]
    return f" ({'; '.join(filter(None, known))})" if any(known) else ""


def resume_command(path: Path, option: str = "") -> str:
    """Return the command that goes on with the run at ``path``, as a shell takes it."""
    return f"dragoman train {shlex.quote(str(path))} --resume{option}"


def smaller_batches(train: TrainConfig) -> str:
    """Return settings for batches of half the size, twice as many per step."""
    return f"train.batch_tokens={max(1, train.batch_tokens // 2)} train.accumulate={2 * train.accumulate}"
