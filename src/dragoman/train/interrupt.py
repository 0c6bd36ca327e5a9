"""Orderly interruption: the first Ctrl-C or SIGTERM asks the run to stop, the second one kills it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Inside the block, SIGTERM raises KeyboardInterrupt like Ctrl-C, so that half-done work can be removed. Ctrl-C
    does so even where a shell had it ignored, as it does for background jobs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interrupts:
    """Inside the block, the first signal only sets ``asked``; the run checks it where it can stop.

    Python allows this in the main thread alone; in other threads signals keep their meaning and ``asked`` stays None.
    """

    asked: str | None = None
    """Name of the signal that came, such as SIGINT; None before one has."""

    def __enter__(self) -> "Interrupts":
        self.before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        # a shell starts background jobs with Ctrl-C ignored; the second one must kill them too
        for known, handler in self.before.items():
            signal.signal(known, signal.SIG_DFL if handler is signal.SIG_IGN else handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
