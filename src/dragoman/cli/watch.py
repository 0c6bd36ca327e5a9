"""Terminal view of a training run: a live line of progress below, events above it."""

import time
from typing import TYPE_CHECKING

from dragoman.cli import messages
from dragoman.cli.terminal import duration, progress_console
from dragoman.train.events import (
    Event,
    Finished,
    Notice,
    Predicted,
    Preparing,
    Started,
    StepsReported,
    Validated,
    Validating,
)
from dragoman.train.report.chart import short

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from dragoman.train.trainer import Trainer

QUIET = 15.0
"""Seconds between lines of progress where the output is not a terminal."""
SHOWN = 200
"""Largest number of characters of a sample."""
BAR = 8
BESIDE = len("- validating  ") + BAR
"""Number of characters of the live line besides its figures."""


def watch(run: "Trainer", *, tensorboard: bool = False, profile: bool = False) -> Finished:
    """Train and show the run; return its last event."""
    from rich.progress import Progress

    from dragoman.train.profile import Profile
    from dragoman.train.tensorboard import TensorBoardWriter

    boards = [TensorBoardWriter(run.directory.path)] if tensorboard else []
    if profile:
        run.profile = Profile(run.directory.path)

    with progress_console() as shown:
        live = Progress(*columns(), console=shown, transient=True, disable=not shown.is_terminal or shown.quiet)
        with live:
            screen = TrainScreen(run, live)
            for event in run.events():
                screen.show(event)
                for board in boards:
                    board.show(event)
                if isinstance(event, Finished):
                    return event
    raise AssertionError("a run ends with Finished")


def columns() -> "tuple[ProgressColumn, ...]":
    """Return the columns of the live line."""
    from rich.progress import BarColumn, SpinnerColumn, TextColumn

    figures = TextColumn("{task.fields[figures]}")
    return SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=BAR), figures


def run_silently(run: "Trainer") -> Finished:
    """Train where another process shows the run; return its last event."""
    for event in run.events():
        if isinstance(event, Finished):
            return event
    raise AssertionError("a run ends with Finished")


class TrainScreen:
    """Screen of a run: prints each event."""

    def __init__(self, run: "Trainer", live: "Progress"):
        self.run, self.live, self.shown = run, live, 0.0
        self.bar = live.add_task("preparing", total=None, figures="")

    def show(self, event: Event) -> None:
        """Print an event."""
        match event:
            case Preparing(stage):
                self.live.update(self.bar, description=stage)
                if self.live.disable:
                    self.say(_plain(f"{stage} ..."))
            case Notice(text):
                self.say(_plain(text))
            case Predicted():
                self.predicted(event)
            case Started():
                self.started(event)
            case StepsReported():
                self.reported(event)
            case Validating():
                self.live.update(self.bar, description="validating")
            case Validated():
                self.live.update(self.bar, description="training")
                self.validated(event)
            case Finished():
                self.finished(event)

    def say(self, text: str) -> None:
        """Print a line of rich's markup."""
        self.live.console.print(text, soft_wrap=True)

    def predicted(self, e: Predicted) -> None:
        from dragoman.cli.prediction import three_lines

        for line in three_lines(e.prediction, self.run.cfg.train.budget, e.advice):
            self.say(_plain(line))

    def started(self, e: Started) -> None:
        trained = f", of which {e.learning / 1e6:.2f}M are trained" if e.learning < e.parameters else ""
        processes = f", {e.processes} processes" if e.processes > 1 else ""
        self.say(f"{e.summary}; {e.parameters / 1e6:.2f}M parameters{trained}; {e.device}, {e.precision}{processes}")
        per_epoch = f"{e.steps_per_epoch:,} steps per epoch, {100 * e.padding_share:.1f}% padding"
        self.say(
            f"{per_epoch}; [bold]{_plain(str(self.run.directory.path))}[/bold]"
            + (f"; resuming after step {e.step:,}" if e.step else "")
        )
        self.live.update(self.bar, description="training", total=e.total, completed=e.step)

    def reported(self, e: StepsReported) -> None:
        room = self.live.console.width
        live = fitting_figures(e, room - BESIDE)
        self.live.update(self.bar, description="training", total=e.total, completed=e.step, figures=live)
        if time.monotonic() - self.shown > QUIET:
            self.shown = time.monotonic()
            figures = f"training  {fitting_figures(e, room - len('training  '))}"
            if self.live.disable:
                self.say(figures)
            elif log := messages.current.log:
                log.add(messages.plain(figures, soft_wrap=True))

    def finished(self, e: Finished) -> None:
        """Print the end. Commands are on lines of their own, so that they can be pasted."""
        lead = ("; to train longer:" if e.complete else "; resume with:") if e.command else "."
        self.say(f"[bold]{_plain(e.reason[0].upper() + e.reason[1:])}{lead}[/bold]")
        if e.command:
            self.say(f"  {_plain(e.command)}")
        if e.kept:
            self.say(f"{_plain(e.kept[0].upper() + e.kept[1:])}")

    def validated(self, e: Validated) -> None:
        from dragoman.config import kind_of
        from dragoman.train.report.page import LEARNED, TOKENS

        writes = LEARNED.get(kind_of(type(self.run.cfg.task)), TOKENS).writes
        perplexity = f"  perplexity {e.perplexity:.2f}" if writes else ""
        scores = "".join(f"  {name} {value:.{1 if value >= 10 else 3}f}" for name, value in e.scores.items())
        best = "  [green]best so far[/green]" if e.best else ""
        self.say(f"[bold]step {e.step:,}[/bold]  validation loss {e.loss:.3f}{perplexity}{scores}{best}")
        for sample in e.samples:
            self.say(f"    [dim]{_plain(_short(sample.source))}[/dim] → {_plain(_short(sample.output))}")


def fitting_figures(e: StepsReported, room: int) -> str:
    """Return as many figures as ``room`` characters hold, the most important first."""
    left = "" if e.seconds_left is None else f"{duration(e.seconds_left)} left"
    text = f"step {e.step:,}" + (f"/{e.total:,}" if e.total else "")
    figures = (
        left,
        f"loss {_number(e.loss, '.3f')}",
        f"{e.skipped} skipped" if e.skipped else "",
        f"{short(e.tokens_per_second)} tokens/s",
        "" if e.utilisation is None else f"{100 * e.utilisation:.0f}% MFU",
        f"lr {e.lr:.1e}",
        f"gradient {_number(e.grad_norm, '.2f')}",
    )
    for figure in filter(None, figures):
        if len(text) + 2 + len(figure) > room:
            break
        text += f"  {figure}"
    return text


def _short(text: str) -> str:
    """Return the beginning of a long text; samples.jsonl has all of it."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
