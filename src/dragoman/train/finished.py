"""Checkpoints of a finished run: weights of all that remain, and the optimizer's state of the last one.

The state is twice as large as the weights or more, and only resuming needs it. While a run goes on every checkpoint has
its own state, so that an older one can replace a damaged one.
"""

from dragoman.checkpoint import RunDirectory
from dragoman.errors import CheckpointError
from dragoman.snapshot import Damaged


def drop_optimizer_states(run: RunDirectory, *, keep: int) -> None:
    """Drop the optimizer's state from all checkpoints but the newest ``keep``; damaged ones stay as they are.

    Raises:
        CheckpointError: a checkpoint cannot be written to.
    """
    for checkpoint in run.checkpoints()[: -max(keep, 1)]:
        try:
            checkpoint.drop("optimizer")
        except Damaged:
            continue
        except OSError as error:
            raise CheckpointError(f"{checkpoint.path}: cannot be made smaller: {error.strerror}") from error


def resumable(run: RunDirectory) -> list[str]:
    """Return the names of the checkpoints with an optimizer's state, oldest first."""
    return [c.path.name for c in run.checkpoints() if (c.path / "optimizer.safetensors").exists()]


def kept(run: RunDirectory) -> str:
    """Return which checkpoints ``run`` has, what each is for, and how much room all of it takes."""
    whole = resumable(run)
    weights = [c.path.name for c in run.checkpoints() if c.path.name not in whole]
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file() and not file.is_symlink())
    text = f"kept to use and to resume: {', '.join(whole)}"
    if weights:
        text += f"; to use, without the optimizer's state: {', '.join(weights)}"
    return f"{text}; {size / 1e6:,.1f} MB in all"
