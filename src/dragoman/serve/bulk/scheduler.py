"""Schedulers: who works on the shards. One interface for processes of this machine and for a cluster."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType

from dragoman.errors import ProcessLost
from dragoman.serve.bulk.shard import Shard, ShardResult

TRIES = 3
"""Number of workers that may die of one shard."""

RowsDone = Callable[[int, int], None]
"""Called with the number of a shard that is being worked on, and how many of its lines are done."""


class ShardScheduler(ABC):
    """Workers, which are started when first needed and stopped when the block ends.

    A worker that dies is replaced, and its shard is worked on again.
    """

    lost: int = 0
    """Number of workers that have died."""

    def __enter__(self) -> "ShardScheduler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def results(self, shards: Iterator[Shard], progress: RowsDone) -> Iterator[ShardResult]:
        """Yield a result for each shard, in any order. At most one shard for each worker is read ahead.

        Raises:
            UserError: a worker found a mistake of the user.
            ProcessLost: one shard has cost too many workers.
        """

    @abstractmethod
    def stop(self) -> None:
        """Stop all workers at once; what they are working on is lost."""


class WorkerFailed(RuntimeError):
    """Defect of ours in a worker; the message holds its traceback."""


def check_tries(shard: Shard, tries: int, how: str) -> None:
    """Check that a shard whose worker has died may be tried again.

    Raises:
        ProcessLost: not any more.
    """
    if tries >= TRIES:
        raise ProcessLost(
            f"rows {shard.first_row} to {shard.last_row}: {tries} workers have died of them, the last one {how}: use "
            "fewer --workers if memory has run out, or look at these rows; the same command goes on from here"
        )
