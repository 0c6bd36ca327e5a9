"""Turns: one thread computes at a time, in the order in which they asked."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is handed on in order, so that a thread that takes it again and again keeps nobody out."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queue: deque[threading.Lock] = deque()
        self._taken = False

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the turn, and hold it."""
        with self._guard:
            if not self._taken:
                self._taken, mine = True, None
            else:
                mine = threading.Lock()
                mine.acquire()
                self._queue.append(mine)
        if mine is not None:
            mine.acquire()  # released by the one before
        try:
            yield
        finally:
            with self._guard:
                if self._queue:
                    self._queue.popleft().release()
                else:
                    self._taken = False
