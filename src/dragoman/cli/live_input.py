"""Lines that arrive while they are answered: batched where they come fast, one by one where they come slowly."""

import os
import select
import stat
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeVar

from dragoman.text.grouping import Grouping, in_groups

T = TypeVar("T")

PAUSE = 0.05
"""Seconds without a new line after which the available lines are answered."""
LONGEST = 0.5
"""Largest number of seconds that a line waits for others, however steadily they come."""
BLOCK = 2**16
"""Number of bytes read at a time, as many as a pipe holds."""
BATCH = 4096
"""Largest number of lines answered together."""


def is_stream(file: BinaryIO) -> bool:
    """Return True if a file may have more lines later: a pipe, a terminal or a socket, but not a regular file."""
    try:
        return os.name == "posix" and not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError):  # an object without a file descriptor, as in tests
        return False


def standard_input() -> Iterator[str]:
    """Return the lines of standard input: ``LiveLines`` where more may come."""
    from dragoman.text.lines import decode_lines

    file, name = sys.stdin.buffer, "standard input"
    return LiveLines(file, name) if is_stream(file) else decode_lines(file, name)


def pipe_lines(path: str) -> "LiveLines | None":
    """Return the lines of a pipe that has a name, such as ``<(command)``; None for any other file."""
    return LiveLines(open(path, "rb"), path, close=True) if is_pipe(path) else None


def is_pipe(path: str) -> bool:
    """Return whether a pipe has this name, or standard input, whose lines may come slowly."""
    try:
        return path == "-" or (os.name == "posix" and stat.S_ISFIFO(os.stat(path).st_mode))
    except (OSError, ValueError):  # a text, which is no name of a file
        return False


class LiveLines(Iterator[str]):
    """Lines of a stream, checked as those of a file are, which can report whether more are available.

    Args:
        close: close ``file`` at its end.
    """

    def __init__(self, file: BinaryIO, name: str, *, close: bool = False):
        from dragoman.text.lines import decode_lines

        self.raw = _RawLines(file, close)
        self.lines = decode_lines(self.raw, name)

    def __next__(self) -> str:
        return next(self.lines)

    def grouped(self, items: Iterator[T], most: int = BATCH) -> Iterator[list[T]]:
        """Group ``items``, each made from the next line, by what arrives without a pause."""
        for item in items:
            group, started = [item], time.monotonic()
            while len(group) < most and self.raw.ready(PAUSE) and time.monotonic() - started < LONGEST:
                try:
                    group.append(next(items))
                except StopIteration:
                    break
            yield group


def grouping_of(lines: Iterable[str]) -> Grouping:
    """Return the grouping for items made from ``lines``."""
    return lines.grouped if isinstance(lines, LiveLines) else in_groups


def line_batches(lines: Iterable[str], most: int = BATCH) -> Iterator[list[str]]:
    """Yield batches of lines to answer together: from a stream what has arrived, else all lines."""
    if isinstance(lines, LiveLines):
        yield from lines.grouped(lines, most)
    else:
        yield list(lines)


class _RawLines(Iterator[bytes]):
    def __init__(self, file: BinaryIO, close: bool):
        self.file, self.handle, self.close = file, file.fileno(), close
        self.lines = deque[bytes]()
        self.partial: list[bytes] = []
        """Received parts of the next line."""
        self.ended = False

    def __next__(self) -> bytes:
        while not self.lines:
            if self.ended:
                raise StopIteration
            self._wait(None)
        return self.lines.popleft()

    def ready(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the next line or the end; return True if it is there."""
        until = time.monotonic() + seconds
        while not (self.lines or self.ended):
            if (remaining := until - time.monotonic()) <= 0 or not self._wait(remaining):
                return False
        return True

    def _wait(self, seconds: float | None) -> bool:
        if not select.select([self.handle], [], [], seconds)[0]:
            return False
        block = os.read(self.handle, BLOCK)
        *complete, rest = block.split(b"\n")
        for line in complete:
            self.lines.append(b"".join([*self.partial, line, b"\n"]))
            self.partial = []
        self.partial += [rest] if rest else []
        if not block:
            self.ended = True
            if self.close:
                self.file.close()
            if self.partial:
                self.lines.append(b"".join(self.partial))
                self.partial = []
        return True
