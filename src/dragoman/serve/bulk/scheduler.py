"""Schedulers: who works on the shards. One interface for processes of this machine and for a cluster."""

from abc import ABC, abstractmethod
from collections import Counter, deque
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

    most: int = 1
    """Number of workers at the most."""
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


class ShardSupply:
    """Shards that are still to be worked on: first those whose worker has died, then new ones."""

    def __init__(self, shards: Iterator[Shard]):
        self.shards = shards
        self.again, self.tries = deque[Shard](), Counter[int]()

    def next(self) -> Shard | None:
        """Return the next shard; None if there is none."""
        return self.again.popleft() if self.again else next(self.shards, None)

    def give_back(self, shard: Shard, how: str) -> None:
        """Take back a shard whose worker has died, to be tried again.

        Raises:
            ProcessLost: too many workers have died of it.
        """
        self.tries[shard.number] += 1
        if (tries := self.tries[shard.number]) >= TRIES:
            raise ProcessLost(
                f"rows {shard.first_row} to {shard.last_row}: {tries} workers have died of them, the last one {how}: "
                "use fewer --workers if memory has run out, or look at these rows; the same command goes on from here"
            )
        self.again.append(shard)
