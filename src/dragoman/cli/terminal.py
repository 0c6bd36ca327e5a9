"""Terminal output: tables and live progress for people, plain lines where the output goes elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dragoman.cli import messages

if TYPE_CHECKING:
    from rich.console import Console


@lru_cache(maxsize=2)
def console(*, errors: bool = False) -> "Console":
    """Return the console for results or, with ``errors``, for messages about them, which stay out of pipes."""
    from rich.console import Console
    from rich.control import Control

    class LoggedConsole(Console):
        """Console that also writes to the log, if there is one."""

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*objects, **options)
            log = messages.current.log
            if log and not any(isinstance(printed, Control) for printed in objects):  # Control moves a live display
                log.add(messages.plain(*objects, **options))

    return LoggedConsole(stderr=errors, highlight=False, soft_wrap=False)


def duration(seconds: float) -> str:
    """Return a duration as ``3:07`` or ``1:02:03``."""
    rounded = round(seconds)
    hours, minutes = divmod(rounded // 60, 60)
    return f"{hours}:{minutes:02}:{rounded % 60:02}" if hours else f"{minutes}:{rounded % 60:02}"


@contextmanager
def progress_console() -> "Iterator[Console]":
    """Yield the console for live progress on standard output, silenced for a quiet command."""
    screen = console()
    before, screen.quiet = screen.quiet, screen.quiet or messages.current.quiet
    try:
        yield screen
    finally:
        screen.quiet = before


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar with rate and time left on standard error while the block runs; yield its update function of
    (done, total).

    Without a total it only counts.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    screen = console(errors=True)
    shown = screen.is_terminal and not messages.current.quiet
    with Progress(*columns, console=screen, transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
