"""Evaluate every checkpoint of a run while the run goes on, in a process of its own: training waits for nothing.

    runs/NAME/evaluations/valid.jsonl   one line per checkpoint: step, seal, scores

This process alone writes that journal, and none of the run's own; the report reads both. A follower that was stopped
continues where it was: a checkpoint with a line is not evaluated again, unless it has been trained again since.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dragoman.checkpoint import RunDirectory
from dragoman.errors import CheckpointError
from dragoman.journal import Journal
from dragoman.snapshot import Checkpoint, Damaged

PAUSE = 2.0
"""Seconds between checks for a new checkpoint."""


@dataclass(frozen=True)
class Followed:
    """A checkpoint and its scores."""

    step: int
    seal: str
    """Checksum of the checkpoint: two checkpoints of the same step differ in it."""
    scores: dict[str, float]
    test_set: str = ""
    """See ``evaluate/folders.py``."""


def journal(run: RunDirectory, name: str) -> Journal:
    """Return the journal of evaluations on the data set ``name``."""
    (run.path / "evaluations").mkdir(exist_ok=True)
    return Journal(run.path / "evaluations" / f"{name}.jsonl")


def follow(
    run: RunDirectory,
    score: Callable[[Path], dict[str, float]],
    lines: Journal,
    *,
    test_set: str = "",
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Followed]:
    """Evaluate checkpoints with ``score``, newest first, until all have a line and training has ended.

    Raises:
        CheckpointError: a damaged checkpoint that has not been removed meanwhile.
    """
    done = {line["seal"] for line in lines.lines()}
    while True:
        training = run.is_being_written()  # checked first, so that the last checkpoint is found below
        waiting = [(c, seal) for c in run.checkpoints() if (seal := _seal(c)) and seal not in done]
        if not waiting and not training:
            return
        if not waiting:
            sleep(PAUSE)
            continue
        checkpoint, seal = waiting[-1]
        done.add(seal)
        try:
            scores = score(checkpoint.path)
        except CheckpointError:
            if checkpoint.path.exists():
                raise
            continue  # pruned while it was read
        found = Followed(checkpoint.step or 0, seal, scores, test_set)
        lines.append(asdict(found))
        yield found


def _seal(checkpoint: Checkpoint) -> str | None:
    """Return the checkpoint's checksum; None if it is being removed."""
    try:
        return checkpoint.seal()
    except Damaged:
        return None
