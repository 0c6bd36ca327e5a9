"""Messages that go beside the results: to standard error, unless a command is to be quiet, and to a log if one is
kept."""

import io
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO


class Messages:
    """The settings of one command: ``--quiet`` and ``--log``."""

    def __init__(self) -> None:
        self.quiet = False
        self.log: MessageLog | None = None

    def keep(self, path: Path) -> None:
        """Begin to append what is told to the file ``path``.

        Raises:
            OutputError: it cannot be written to.
        """
        if self.log is None or self.log.path != path:
            self.log = MessageLog(path)
            self.log.add("$ " + shlex.join(["dragoman", *sys.argv[1:]]))

    def end(self) -> None:
        """Close the log; what is told from now on is not in it."""
        if self.log is not None:
            self.log.file.close()
            self.log = None

    @contextmanager
    def told(self) -> Iterator[None]:
        """Send standard error through these settings while the block runs."""
        if not self.quiet and self.log is None:
            yield
            return
        before = sys.stderr
        sys.stderr = _Told(before, self)
        try:
            yield
        finally:
            sys.stderr = before


class MessageLog:
    """A file that grows by a line for each line told, with the time before it."""

    def __init__(self, path: Path):
        from dragoman.errors import OutputError
        from dragoman.output_file import cannot_write, check_output_file

        if path.suffix.lower() in (".gz", ".zst", ".bz2", ".xz"):
            raise OutputError(f"{path}: a log is plain text: leave {path.suffix} out of its name")
        check_output_file(path)
        self.path, self.rest = path, ""
        try:
            self.file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
        except OSError as error:
            raise cannot_write(path, error) from None

    def write(self, text: str) -> None:
        """Add the lines that ``text`` completes; what a terminal would have overwritten is left out."""
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


class _Told:
    """Standard error as commands see it."""

    def __init__(self, stream: TextIO, messages: Messages):
        self.rich_proxied_file, self.messages = stream, messages  # rich's consoles look for this name, and pass us by

    def write(self, text: str) -> int:
        if self.messages.log:
            self.messages.log.write(text)
        return len(text) if self.messages.quiet else self.rich_proxied_file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


current = Messages()
"""Those of the command that runs."""


def begin() -> None:
    """Forget the settings of a command that ran before in this process."""
    global current
    current = Messages()


def told(run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what a command does, so that it keeps to the settings given before it."""

    def wrapped(*args: Any, **options: Any) -> Any:
        with current.told():
            return run(*args, **options)

    return wrapped


def complain(text: str) -> None:
    """Tell a mistake, quiet or not."""
    print(f"dragoman: {text}", file=sys.stderr)
    if current.log:
        current.log.add(f"dragoman: {text}")


def plain(*objects: Any, **options: Any) -> str:
    """Render what rich would print as plain text."""
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=160, color_system=None, highlight=False).print(*objects, **options)
    return out.getvalue()
