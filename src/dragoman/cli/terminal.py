"""What a command writes to: tables and live progress for people, plain lines where the output goes elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@lru_cache(maxsize=2)
def console(*, errors: bool = False) -> "Console":
    """Where results go or, with ``errors``, what is said about them: the latter stays out of pipes."""
    from rich.console import Console

    return Console(stderr=errors, highlight=False, soft_wrap=False)


def duration(seconds: float) -> str:
    """``3:07``, ``1:02:03``: as short as it can be."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


@contextmanager
def tracked(what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left on standard error while the block runs: call what is yielded with (done, total).

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
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
