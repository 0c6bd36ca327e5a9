"""Journal: a file of JSON lines that grows with a run and is rewound to the checkpoint when the run resumes."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dragoman import durable
from dragoman.errors import CheckpointError


class Journal:
    """Lines such as ``{"step": 500, "loss": 2.31}``, ordered by step."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, line: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            CheckpointError: it cannot be written, for instance because the disk is full.
        """
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise CheckpointError(f"{self.path}: {error.strerror}: make room and go on with --resume") from error

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield all complete lines, up to one that a crash truncated; none where there is no file.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            file = self.path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror}") from error
        with file:
            for text in file:
                try:
                    yield json.loads(text)
                except ValueError:
                    return

    def rewind(self, belongs: Callable[[dict[str, Any]], bool]) -> None:
        """Keep the lines for which ``belongs`` is true; the others came after the checkpoint and will be written
        again."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines() if belongs(line))
        durable.replace(self.path, text.encode())

    def flush(self) -> None:
        """Wait until all lines are on the disk, before a checkpoint that relies on them."""
        if self.path.exists():
            with self.path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())
