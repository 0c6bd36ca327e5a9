"""Standard input, output and error: UTF-8 whatever the locale says, and no traceback where writing fails at the end."""

import io
import os
import sys
from typing import Any

from dragoman.cli.messages import complain
from dragoman.errors import OutputError
from dragoman.output_file import RawOutput


def use_utf8() -> None:
    """Read and write UTF-8, and the same bytes to standard output as to a file.

    A byte that is no UTF-8, as names of files may hold, goes out as it came in; standard error shows it escaped.
    """
    _reconfigure(sys.stdin, errors="surrogateescape")
    _reconfigure(sys.stdout, errors="surrogateescape", newline="\n")
    _reconfigure(sys.stderr, errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout = _explaining(sys.stdout)


def _reconfigure(stream: Any, **options: Any) -> None:
    if isinstance(stream, io.TextIOWrapper):  # None where it is closed
        stream.reconfigure(encoding="utf-8", **options)


def _explaining(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, whose errors say that they are its own."""
    raw = RawOutput(stream.fileno(), "standard output")
    at_once = stream.line_buffering or stream.write_through  # python -u
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="surrogateescape", newline="\n", line_buffering=at_once
    )


def finish(code: int) -> int:
    """Write what is still to be written, and return the exit code: a full disk may show itself only now."""
    try:
        if sys.stdout:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # who read it has enough
        code = code or 1
    except (OutputError, OSError) as error:
        if not code:
            complain(str(error))
        code = code or 2
    # what could not be written must not be tried again when the interpreter ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
