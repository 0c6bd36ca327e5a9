"""Partial output: lines translated so far, kept beside the output file, so that a stopped command resumes there.

``NAME.partial`` has a line of JSON with the settings, and then one line for each line of the text, with its answers. It
grows by complete batches of lines, each flushed to the disk. After a crash an incomplete batch is truncated and made
again. So lines fall into the same batches, and give the same answers, however often a process was stopped.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dragoman.errors import ConfigError, DataError


class FinishedLine(NamedTuple):
    """Line of the text with its answers: none where it is empty or was refused."""

    text: str
    answers: tuple[str, ...]


class UnfinishedFile:
    """Lines finished so far, and the file that holds them."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.file = path, file
        self.begin = self.end = self.lines = 0

    @property
    def settings(self) -> dict[str, Any] | None:
        """Return the settings in the first line; None in a new file.

        Raises:
            ConfigError: the first line holds something else.
        """
        self.file.seek(0)
        first = self.file.readline()
        self.begin = self.end = len(first)
        if first and _parsed(first) is None:
            raise ConfigError(
                f"{self.path}: its first line does not hold the settings it was started with: move that file away"
            )
        return _parsed(first)

    def resume(self, settings: Mapping[str, Any], batch_size: int) -> None:
        """Start a new file, or resume after the last complete batch of ``batch_size`` lines.

        Raises:
            ConfigError: the file was made with other settings, or is something else.
        """
        before = self.settings
        if before is None:
            self._write([dict(settings)])
            self.begin = self.end
            return
        for name in settings.keys() | before.keys():
            if settings.get(name) != before.get(name):
                raise ConfigError(
                    f"{self.path}: was started with {name} {before.get(name)}, but this command has "
                    f"{settings.get(name)}: use the same, or remove that file to start again"
                )
        at, since = self.end, 0
        while _parsed(line := self.file.readline()) is not None:
            at, since = at + len(line), since + 1
            if since == batch_size:
                self.end, self.lines, since = at, self.lines + batch_size, 0
        self._truncate(self.end)

    def __iter__(self) -> Iterator[FinishedLine]:
        """Yield the finished lines from the first on."""
        self.file.seek(self.begin)
        for line in self.file:
            record = json.loads(line)
            yield FinishedLine(record["text"], tuple(record["answers"]))

    def append(self, batch: Iterable[FinishedLine]) -> None:
        """Append a batch of lines and flush it to the disk.

        Raises:
            DataError: there is no room on the disk.
        """
        records = [made._asdict() for made in batch]
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
            raise DataError(f"{self.path}: {error.strerror}: make room, and run the same command again") from None
        self.end += len(content)

    def _truncate(self, size: int) -> None:
        self.file.truncate(size)
        self.end = size


@contextmanager
def open_unfinished(output: str | Path) -> Iterator[UnfinishedFile]:
    """Open the partial file beside ``output``, or a new one, locked for this process until the block ends. It stays,
    unless nothing was written to it.

    Raises:
        ConfigError: it cannot be written to, or another process is writing to it.
    """
    import fcntl  # imported here: Windows has no fcntl, and the rest works there

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
    """Parse a line; None if it is incomplete, as a crash may leave it."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
