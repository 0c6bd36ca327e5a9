"""Parallel map over a stream with several processes; results keep the order of the items, and few are in memory."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from typing import TypeVar

from dragoman.errors import DataError
from dragoman.text.store import chunks

A = TypeVar("A")
B = TypeVar("B")

CHUNK = 2000
"""Number of items sent to a process at a time: sending them costs less than a tenth of work worth sharing."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_parallel(items: Iterable[A], work: Callable[[list[A]], list[B]], workers: int) -> Iterator[B]:
    """Apply ``work`` to chunks of ``items`` in ``workers`` processes; in this process, item by item, if 1.

    At most 2 chunks per process are read ahead: memory does not grow with the stream.

    Raises:
        DataError: a process was killed from outside.
    """
    if workers <= 1:
        yield from chain.from_iterable(work([item]) for item in items)
        return
    parts = chunks(items, CHUNK)
    waiting: deque[Future[list[B]]] = deque()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _leave_signals) as pool:
        try:
            for part in parts:
                waiting.append(pool.submit(work, part))
                if len(waiting) >= 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed from outside, perhaps for lack of memory: use fewer workers, or 1"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals() -> None:
    """Ignore Ctrl-C: only the parent process handles it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
