"""Standard input, output and error: UTF-8 in any locale, and no traceback where the last write fails."""

import io
import os
import sys
from typing import Any

from dragoman.cli.messages import report_error
from dragoman.errors import DataError, OutputError
from dragoman.output_file import RawOutput


def use_utf8() -> None:
    """Read and write UTF-8, with the same bytes on standard output as in a file.

    A byte that is not UTF-8, as file names may hold, is written as it was read; standard error shows it escaped. Where
    standard input or output is closed, its use raises an error that says so.
    """
    _keep_numbers()
    _reconfigure(sys.stdin, errors="surrogateescape")
    _reconfigure(sys.stdout, errors="surrogateescape", newline="\n")
    _reconfigure(sys.stderr, errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout = _explaining(sys.stdout)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedInput()))
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_ClosedOutput()))
    if sys.stderr is None:  # print would write to standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


class _ClosedInput(io.RawIOBase):
    """Standard input of a command that was started without one."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any, /) -> int:
        raise DataError("standard input: is closed: name a file, or give the text as an argument")


class _ClosedOutput(io.RawIOBase):
    """Standard output of a command that was started without one.

    It raises only once: at the end the interpreter flushes it again.
    """

    told = False

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        if self.told:
            return len(content)
        self.told = True
        raise OutputError("standard output: is closed: write elsewhere, with --output where the command has it")


def _keep_numbers() -> None:
    """Open the null device under the numbers of closed standard streams, which files opened later would get."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _reconfigure(stream: Any, **options: Any) -> None:
    if isinstance(stream, io.TextIOWrapper):  # None where it is closed
        stream.reconfigure(encoding="utf-8", **options)


def _explaining(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return the stream wrapped so that its errors name it."""
    raw = RawOutput(stream.fileno(), "standard output")
    unbuffered = stream.line_buffering or stream.write_through  # python -u
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="surrogateescape", newline="\n", line_buffering=unbuffered
    )


def finish(code: int) -> int:
    """Flush standard output and return the exit code: a full disk may be noticed only now."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has closed the pipe
        code = code or 1
    except (OutputError, OSError) as error:
        if not code:
            report_error(str(error))
        code = code or 2
    # the interpreter must not try to write the rest again when it exits
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
