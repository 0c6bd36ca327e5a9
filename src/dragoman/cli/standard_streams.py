"""Standard input, output and error: UTF-8 whatever the locale says, and no traceback where writing fails at the end."""

import io
import os
import sys
from typing import Any

from dragoman.cli.messages import complain


def use_utf8() -> None:
    """Read and write UTF-8, and the same bytes to standard output as to a file.

    A byte that is no UTF-8, as names of files may hold, goes out as it came in; standard error shows it escaped.
    """
    _reconfigure(sys.stdin, errors="surrogateescape")
    _reconfigure(sys.stdout, errors="surrogateescape", newline="\n")
    _reconfigure(sys.stderr, errors="backslashreplace")


def _reconfigure(stream: Any, **options: str) -> None:
    if isinstance(stream, io.TextIOWrapper):  # None where it is closed
        stream.reconfigure(encoding="utf-8", **options)


def finish(code: int) -> int:
    """Write what is still to be written, and return the exit code: a full disk shows itself only now."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:  # who read it has enough
        code = code or 1
    except OSError as error:
        if not code:
            complain(f"standard output: cannot be written to: {error.strerror}")
        code = code or 2
    else:
        return code
    # what could not be written must not be tried again when the interpreter ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def fails() -> bool:
    """Return whether standard output is what cannot be written to."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        return True
    return False
