"""Messages beside the results: on standard error, unless a command is quiet, and in a log if there is one."""

import io
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO


class Messages:
    """Settings of one command: ``--quiet`` and ``--log``."""

    def __init__(self) -> None:
        self.quiet = False
        self.log: MessageLog | None = None
        self.behind: TextIO | None = None
        """Standard error itself, while it is routed."""

    def keep(self, path: Path) -> None:
        """Start to append messages to the file ``path``.

        Raises:
            OutputError: it cannot be written to.
        """
        if self.log is None or self.log.path != path:
            self.log = MessageLog(path)
            self.log.add("$ " + shlex.join(["dragoman", *sys.argv[1:]]))

    def end(self) -> None:
        """Close the log; later messages are not in it."""
        if self.log is not None:
            self.log.file.close()
            self.log = None

    @contextmanager
    def route_stderr(self) -> Iterator[None]:
        """Route standard error through these settings while the block runs."""
        if not self.quiet and self.log is None:
            yield
            return
        before = sys.stderr
        sys.stderr, self.behind = _RoutedStderr(before, self), before
        try:
            yield
        finally:
            sys.stderr, self.behind = before, None


class MessageLog:
    """Log file with a line per message line, each with its time."""

    def __init__(self, path: Path):
        from dragoman.errors import OutputError
        from dragoman.output_file import cannot_write, check_output_file

        if path.suffix.lower() in (".gz", ".zst", ".bz2", ".xz"):
            raise OutputError(f"{path}: a log is plain text: remove {path.suffix} from its name")
        check_output_file(path)
        self.path, self.rest = path, ""
        try:
            self.file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
        except OSError as error:
            raise cannot_write(path, error) from None

    def write(self, text: str) -> None:
        """Add the lines that ``text`` completes, without what a terminal would have overwritten."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.add(line.rstrip("\r").rpartition("\r")[2])

    def add(self, text: str) -> None:
        """Add each line of ``text``; a full disk ends the log, not the command."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            self.file.writelines(f"{now}  {line.rstrip()}\n" for line in text.splitlines() if line.strip())
            self.file.flush()
        except OSError as error:
            current.log = None
            with suppress(OSError):
                self.file.close()
            print(f"dragoman: {self.path}: the log ends here: {error.strerror}", file=sys.stderr)


class _RoutedStderr:
    """Standard error of a command under the settings of ``Messages``."""

    def __init__(self, stream: TextIO, messages: Messages):
        self.rich_proxied_file, self.messages = (
            stream,
            messages,
        )  # rich's consoles look for this name, and bypass this object

    def write(self, text: str) -> int:
        if self.messages.log:
            self.messages.log.write(text)
        return len(text) if self.messages.quiet else self.rich_proxied_file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


current = Messages()
"""Settings of the running command."""


def reset() -> None:
    """Reset the settings of an earlier command in this process."""
    global current
    current = Messages()


def routed(run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command's function so that standard error obeys the settings."""

    def wrapped(*args: Any, **options: Any) -> Any:
        with current.route_stderr():
            return run(*args, **options)

    return wrapped


class _Shown(logging.Handler):
    """Prints what is logged as a message."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"dragoman: {record.getMessage()}", file=sys.stderr)


def show_log(name: str) -> None:
    """Print what a logger says from level INFO on."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.addHandler(_Shown())


def report_error(text: str) -> None:
    """Print an error, quiet or not."""
    print_error(f"dragoman: {text}")


def print_error(text: str) -> None:
    """Print a line about an error as it is, quiet or not, and add it to the log."""
    print(text, file=current.behind or sys.stderr, flush=True)
    if current.log:
        current.log.add(text)


def plain(*objects: Any, **options: Any) -> str:
    """Render rich's output as plain text."""
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=160, color_system=None, highlight=False).print(*objects, **options)
    return out.getvalue()
