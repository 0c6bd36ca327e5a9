"""The time that steps take: by the clock on the wall, and by the processor."""

import signal
import threading
import time
from typing import Any, NamedTuple


class Lap(NamedTuple):
    seconds: float
    """By the wall."""
    cpu_seconds: float
    """Of all threads of this process together."""


class Stopwatch:
    """Times steps. One during which the process stood still (Ctrl-Z, SIGSTOP) counts as a usual one.

    Python allows signal handlers in the main thread alone; elsewhere a stopped process counts as a slow one.
    """

    stopped = False

    def __enter__(self) -> "Stopwatch":
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGCONT, self._continued)
        return self

    def __exit__(self, *error: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCONT, self.before)

    def _continued(self, *given: object) -> None:
        self.stopped = True

    def start(self) -> None:
        self.stopped, self.wall, self.cpu = False, time.perf_counter(), time.process_time()

    def lap(self, usual: float) -> Lap:
        """Return the time since ``start``; at most ``usual`` seconds where the process was stopped meanwhile."""
        seconds, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return Lap(min(seconds, usual) if self.stopped and usual > 0 else seconds, cpu)
