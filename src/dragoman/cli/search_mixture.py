"""dragoman search-mixture: find the weights that the sources of a run should have."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.cli.options import writable_folder
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from dragoman.compare.mixture_search import RoundFinished, SearchEvent, SearchFinished, SearchPlanned, TrialFinished


def search_mixture(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_FILE [PATH=VALUE]...",
            help="A run file (YAML) with several sources; then settings to change, such as train.batch_tokens=2048.",
        ),
    ],
    steps: Annotated[int | None, typer.Option(help="Length of a trial in steps.")] = None,
    flops: Annotated[
        float | None,
        typer.Option(help="Length of a trial as 6 x parameters (without embeddings) x tokens, such as 1e13."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Number of times each trial is run: at least 2, to measure the uncertainty.")
    ] = 3,
    rounds: Annotated[
        int, typer.Option(help="Number of rounds; each continues from the weights that the one before found.")
    ] = 1,
    step: Annotated[
        float, typer.Option(help="Factor on a weight in a trial, and the most that a weight changes by in a round.")
    ] = 1.5,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",  # its earlier name
            "-o",
            help="Folder of the search; default: runs/, the name of the file, and -mixture-search.",
            callback=writable_folder,
        ),
    ] = None,
) -> None:
    """Search the mixture of a run's sources: raise each weight in turn, in short trials, and measure the gain.

    dragoman search-mixture my-run.yaml --steps 500

    dragoman search-mixture my-run.yaml --flops 1e14 --seeds 3 --rounds 2

    The same command resumes a search that was stopped.
    """
    from dragoman.cli.terminal import console, progress_console
    from dragoman.compare.mixture_search import MixtureSearch, RoundFinished, SearchFinished
    from dragoman.compare.search_plan import SearchSettings
    from dragoman.config import from_dict
    from dragoman.train.recipe import load

    if (steps is None) == (flops is None):
        raise ConfigError("the length of a trial is missing or given twice: use either --steps or --flops")
    budget = {"kind": "updates", "steps": steps} if flops is None else {"kind": "compute", "flops": flops}
    given: dict[str, Any] = {"budget": budget, "seeds": seeds, "rounds": rounds, "step": step}
    run_file, *settings = what
    search_settings, cfg = from_dict(SearchSettings, given), load(run_file, settings)
    search = MixtureSearch(cfg, search_settings, out or _default_folder(run_file))
    weights: dict[str, float] = {}
    with progress_console() as shown, _live(shown) as live:
        screen = SearchScreen(search.path, live)
        for event in search.events():
            screen.show(event)
            if isinstance(event, RoundFinished):
                weights = event.weights
            if isinstance(event, SearchFinished) and not event.complete:
                raise typer.Exit(130)
    from rich.markup import escape

    console().print(
        f"[bold]{escape(str(search.path))}[/bold]: weights.yaml, report.json; to train with these weights:",
        soft_wrap=True,
    )
    console().print(_command(what, weights), soft_wrap=True, markup=False)


def _default_folder(run_file: str) -> Path:
    """Return the folder of a search without --output; one begun under the command's earlier name is resumed there."""
    name = Path(run_file).name.partition(".")[0]
    earlier = Path("runs") / f"{name}-weigh"
    return earlier if earlier.exists() else Path("runs") / f"{name}-mixture-search"


def _command(what: list[str], weights: dict[str, float]) -> str:
    """Return the ``dragoman train`` command with the weights found, to be pasted into a shell."""
    import json

    given = ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {weight:g}" for name, weight in weights.items())
    return shlex.join(["dragoman", "train", *what, f"data.mixture={{kind: weights, weights: {{{given}}}}}"])


def _live(shown: "Console") -> "Progress":
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
    )
    return Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal or shown.quiet)


class SearchScreen:
    """Terminal display of a search's events."""

    def __init__(self, path: Path, live: "Progress"):
        self.path, self.live = path, live
        self.bar = live.add_task("preparing", total=None, figures="")

    def show(self, event: "SearchEvent") -> None:
        from dragoman.cli.terminal import duration
        from dragoman.compare.mixture_search import (
            RoundFinished,
            SearchFinished,
            SearchPlanned,
            TrialFinished,
            TrialProgress,
        )
        from dragoman.train.events import Notice, Preparing

        match event:
            case Preparing(stage):
                self.live.update(self.bar, description=stage)
                if self.live.disable:
                    self.say(f"{stage} ...")
            case Notice(text):
                self.say(text)
            case SearchPlanned():
                self.planned(event)
            case TrialProgress(name, number, trials, done, left):
                figures = f"trial {number} of {trials}  {name}  {duration(left)} left"
                self.live.update(self.bar, description="trials", completed=number - 1 + done, figures=figures)
            case TrialFinished():
                self.trial_finished(event)
            case RoundFinished():
                self.round_finished(event)
            case SearchFinished():
                self.ended(event)

    def say(self, text: str) -> None:
        self.live.console.print(text, soft_wrap=True, markup=False)

    def planned(self, e: "SearchPlanned") -> None:
        from dragoman.cli.terminal import duration

        plan = e.plan
        tokens = plan.tokens_per_step * plan.steps
        self.say(
            f"a trial: {plan.steps:,} steps = {tokens:,.0f} tokens, {plan.flops(tokens):.3g} FLOPs "
            f"(6 x {plan.parameters:,} parameters without embeddings x tokens)"
        )
        before = f", {e.done} of them finished before" if e.done else ""
        self.say(f"{e.trials} trials{before}: about {duration(e.seconds)}, at {plan.pace.step:.3g} s a step")
        self.live.update(self.bar, description="trials", total=e.trials, completed=e.done)

    def trial_finished(self, e: "TrialFinished") -> None:
        from dragoman.cli.terminal import duration

        more = "finished before" if e.before else f"{duration(e.seconds_left)} left"
        self.say(f"{e.number:>3} of {e.trials}  validation loss {e.outcome.loss:.4f}  {e.name}  {more}")

    def round_finished(self, e: "RoundFinished") -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, column in enumerate((f"round {e.round}", "weight", "gain", "+-", "", "new weight", "tokens a trial")):
            table.add_column(column, justify="right" if i else "left")
        for name, source in e.sources.items():
            gain, mark = source.gain, "" if source.gain.certain else "[dim]uncertain[/dim]"
            figures = (f"{source.before:.4f}", f"{gain.mean:+.4f}", f"{gain.error:.4f}", mark, f"{source.after:.4f}")
            table.add_row(escape(name), *figures, f"{source.tokens:,.0f}")
        self.live.console.print(table)

    def ended(self, e: "SearchFinished") -> None:
        from dragoman.cli.terminal import duration

        if not e.complete:
            self.say(f"Stopped; {e.reason}.")
            return
        self.say(f"{e.reason[0].upper()}{e.reason[1:]}.")
        if cost := e.cost:
            counted = "" if cost.counted is None else f"; {cost.counted:.3g} counted in all products"
            self.say(f"learning took {duration(cost.seconds)}, predicted {duration(cost.predicted_seconds)}")
            self.say(
                f"6ND: {cost.flops:.3g}, predicted {cost.predicted_flops:.3g}; a trial {cost.least:.3g} to "
                f"{cost.most:.3g}{counted}"
            )
