"""Orderly interruption: the first Ctrl-C or SIGTERM asks the run to stop, the second one kills it.

A program that trains may ask as well, from any thread.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
BY_PROGRAM = 255
"""Number that stands for the program itself; no signal has it."""


def who_asked(number: int) -> str:
    """Return who asked a run to stop: the name of a signal, or the program."""
    return "the program" if number == BY_PROGRAM else signal.Signals(number).name


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

    Python allows this in the main thread alone; in other threads signals keep their meaning.

    Args:
        wanted: returns True once the program wants the run to stop.
    """

    def __init__(self, wanted: Callable[[], bool] = lambda: False):
        self.wanted, self.signal = wanted, 0

    @property
    def asked(self) -> int:
        """Number of the signal that came, or ``BY_PROGRAM``; 0 before anybody has asked."""
        return self.signal or BY_PROGRAM * self.wanted()

    def __enter__(self) -> "Interrupts":
        self.before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        # a shell starts background jobs with Ctrl-C ignored; the second one must kill them too
        for known, handler in self.before.items():
            signal.signal(known, signal.SIG_DFL if handler is signal.SIG_IGN else handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
