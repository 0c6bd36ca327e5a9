"""Lines in and lines out: what commands that answer each line of a text have in common."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from dragoman.errors import DataError


def given_lines(text: str | None) -> Iterable[str]:
    """The lines of the file ``text``, or ``text`` itself if it names none; standard input without it.

    Raises:
        DataError: what looks like the name of a file, and is none.
    """
    from dragoman.text.lines import decode_lines, read_lines

    if text is None:
        return decode_lines(sys.stdin.buffer, "standard input")
    if Path(text).is_file():
        return read_lines(text)
    if text.endswith((".txt", ".gz", ".zst")) or ("/" in text and " " not in text):
        raise DataError(f"{text}: no such file")
    return [text]


def write_lines(lines: Iterable[str], output: Path | None) -> None:
    """To the file ``output``, which is there whole or not at all, or to standard output."""
    from dragoman.durable import replace_with

    if output is None:
        _write(lines, sys.stdout)
    else:
        replace_with(output, lambda partial: _write_file(lines, partial))


def _write_file(lines: Iterable[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        _write(lines, file)


def _write(lines: Iterable[str], file: TextIO) -> None:
    for line in lines:
        print(line, file=file)
