"""Prefetching: prepare the next step's batches while a GPU computes this step's.

On a CPU this does not pay: making a step's batches takes well under a hundredth of the step (benchmarks/parallel.py),
on cores that are busy with the step.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Prepared = TypeVar("Prepared")


class Prefetcher(Generic[Prepared]):
    """Call ``make(step)`` one step ahead in a thread; an error there is raised when its step is requested."""

    def __init__(self, make: Callable[[int], Prepared]):
        self.make, self.thread = make, ThreadPoolExecutor(1, "ahead")
        self.next: tuple[int, Future[Prepared]] | None = None

    def __call__(self, step: int) -> Prepared:
        if self.next is None or self.next[0] != step:
            self.next = step, self.thread.submit(self.make, step)
        ready = self.next[1]
        self.next = step + 1, self.thread.submit(self.make, step + 1)
        return ready.result()

    def close(self) -> None:
        """End the thread, once it has made what it is at."""
        self.thread.shutdown(cancel_futures=True)
        self.next = None
