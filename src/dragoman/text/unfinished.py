"""What was made of a text line by line, kept beside the file that it is to become: what was stopped goes on there.

``NAME.partial`` has a line of JSON that says what is made and how, and then one for each line of the text, whatever
came of it. It grows by whole lots of lines, each flushed to the disk; what a crash left of a lot is cut off, and that
lot is made again. So lines fall into the same lots, and the same comes of them, however often a process was stopped.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dragoman.errors import ConfigError, DataError


class FinishedLine(NamedTuple):
    """A line of the text, and what came of it: nothing, where it is empty or was refused."""

    text: str
    answers: tuple[str, ...]


class UnfinishedFile:
    """The lines that are done."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.file = path, file
        self.begin = self.end = self.lines = 0

    @property
    def how(self) -> dict[str, Any] | None:
        """What is made and how, as the first line says; None in a new file.

        Raises:
            ConfigError: it says nothing of the kind.
        """
        self.file.seek(0)
        first = self.file.readline()
        self.begin = self.end = len(first)
        if first and _parsed(first) is None:
            raise ConfigError(f"{self.path}: its first line does not say how it was begun: move that file away")
        return _parsed(first)

    def take_up(self, how: Mapping[str, Any], lot: int) -> None:
        """Begin, or go on after the last whole lot of so many lines.

        Raises:
            ConfigError: what is there was made in another way, or is something else.
        """
        before = self.how
        if before is None:
            self._write([dict(how)])
            self.begin = self.end
            return
        for name in how.keys() | before.keys():
            if how.get(name) != before.get(name):
                raise ConfigError(
                    f"{self.path}: was begun with {name} {before.get(name)}, and this is {how.get(name)}: ask for the "
                    "same, or remove that file to begin anew"
                )
        at, since = self.end, 0
        while _parsed(line := self.file.readline()) is not None:
            at, since = at + len(line), since + 1
            if since == lot:
                self.end, self.lines, since = at, self.lines + lot, 0
        self._cut(self.end)

    def __iter__(self) -> Iterator[FinishedLine]:
        """From the first line on."""
        self.file.seek(self.begin)
        for line in self.file:
            record = json.loads(line)
            yield FinishedLine(record["text"], tuple(record["answers"]))

    def append(self, lot: Iterable[FinishedLine]) -> None:
        """
        Raises:
            DataError: there is no room on the disk.
        """
        records = [made._asdict() for made in lot]
        self._write(records)
        self.lines += len(records)

    def _write(self, records: list[dict[str, Any]]) -> None:
        content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        try:
            self.file.seek(self.end)
            self.file.write(content)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror}: make room, and give the same command again") from None
        self.end += len(content)

    def _cut(self, size: int) -> None:
        self.file.truncate(size)
        self.end = size


@contextmanager
def unfinished(output: str | Path) -> Iterator[UnfinishedFile]:
    """What lies beside ``output``, or a new file there, held by this process alone until the block ends; it stays, but
    for a file that nothing was written to.

    Raises:
        ConfigError: it cannot be written to, or another process is doing so.
    """
    import fcntl  # here, so that the rest works where there is none

    path = Path(f"{output}.partial")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written to: {error.strerror}") from None
    with open(handle, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{path}: another process is writing to it: wait for it, or stop it first") from None
        try:
            yield UnfinishedFile(path, file)
        finally:
            if path.exists() and not path.stat().st_size:
                path.unlink()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None for a line that is not whole, as a crash may leave it."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
