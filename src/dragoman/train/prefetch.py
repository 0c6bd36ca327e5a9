"""Preparing the next step while a GPU computes this one.

On a CPU this does not pay: making a step's batches takes well under a hundredth of the step (benchmarks/parallel.py),
on cores that are busy with it.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Prepared = TypeVar("Prepared")


class Prefetcher(Generic[Prepared]):
    """``make(step)``, made one step ahead by a thread; an error there is raised when its step is asked for."""

    def __init__(self, make: Callable[[int], Prepared]):
        self.make, self.thread = make, ThreadPoolExecutor(1, "ahead")
        self.next: tuple[int, Future[Prepared]] | None = None

    def __call__(self, step: int) -> Prepared:
        if self.next is None or self.next[0] != step:
            self.next = step, self.thread.submit(self.make, step)
        ready = self.next[1]
        self.next = step + 1, self.thread.submit(self.make, step + 1)
        return ready.result()
