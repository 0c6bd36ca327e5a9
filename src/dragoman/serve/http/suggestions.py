"""Better translations that users send: a file of JSON lines, which can be read as training text."""

import json
import threading
import time
from pathlib import Path

from dragoman import durable
from dragoman.output_file import cannot_write, check_output_file
from dragoman.serve.http.problems import Problem

LARGEST = 64 << 20
"""Bytes from which the file takes nothing more."""


class SuggestionFile:
    """Appends suggestions to a file."""

    def __init__(self, path: Path):
        """
        Raises:
            OutputError: the file cannot be written to.
        """
        check_output_file(path)
        self.path = path
        self._lock = threading.Lock()

    def add(self, *, source: str, target: str, text: str, suggestion: str) -> None:
        """Append one suggestion.

        Raises:
            Problem: the file is full.
            OutputError: it cannot be written to any more.
        """
        fields = {"source": source, "target": target, "text": text, "suggestion": suggestion}
        line = json.dumps({"time": round(time.time())} | fields, ensure_ascii=False) + "\n"
        try:
            with self._lock:
                if self.path.exists() and self.path.stat().st_size > LARGEST:
                    raise Problem(
                        429, "full", "no more suggestions are taken: the file for them is full", retry_after=3600
                    )
                durable.append(self.path, line.encode())
        except OSError as error:
            raise cannot_write(self.path, error) from None
