"""Leaving in good order: the first Ctrl-C or SIGTERM asks, the second one leaves at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """While entered, SIGTERM raises KeyboardInterrupt, as Ctrl-C does: what is half done can then be removed. So does
    Ctrl-C where a shell had it ignored, as it has for jobs in the background."""
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
    """While entered, the first signal only sets ``asked``; whoever works looks at it when the work may be left.

    Python allows this in the main thread alone; elsewhere signals keep their meaning and ``asked`` stays None.
    """

    asked: str | None = None
    """Name of the signal that came, such as SIGINT."""

    def __enter__(self) -> "Interrupts":
        self.before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        for known, handler in self.before.items():  # a shell's background jobs start with Ctrl-C ignored; we heed it
            signal.signal(known, signal.SIG_DFL if handler is signal.SIG_IGN else handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
