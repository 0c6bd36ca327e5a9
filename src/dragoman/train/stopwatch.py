"""Time that steps take: wall-clock time and processor time."""

import signal
import threading
import time
from typing import Any, NamedTuple


class Lap(NamedTuple):
    """Time of one step."""

    seconds: float
    """Wall-clock time."""
    cpu_seconds: float
    """Processor time of all threads of this process together."""


class Stopwatch:
    """Time steps. A step during which the process was stopped (Ctrl-Z, SIGSTOP) counts as an average one.

    Python allows signal handlers in the main thread alone; in other threads a stopped process counts as a slow one.
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
