"""dragoman demo: a translator of interface strings, trained from scratch in about ten minutes."""

import math
import os
import shlex
import shutil
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dragoman.decode.translator import Translator
    from dragoman.evaluate.evaluation import Evaluation

SENTENCES = (
    "The device is already configured.",
    "Please check your username and password.",
    "The battery is low.",
    "Do you want to add this device?",
)
MINUTES = 9.0
EXPECTED = {"es": {"bleu": 50.0, "chrf": 69.0}, "de": {"chrf": 57.0}}
"""Scores that two free cores reach at least in ``MINUTES``."""
EXPECTED_TOKENS = {"es": 3_500_000}
"""Target tokens that suffice for these scores: as many reached BLEU 52.3 and chrF 71.5, in six minutes of two cores."""


def demo(
    to: Annotated[
        str, typer.Option(help="Target language, as Home Assistant names it: es, de, fr, nl, pl, pt-BR, sv, ...")
    ] = "es",
    minutes: Annotated[float, typer.Option(min=0.1, help="Training time.")] = MINUTES,
    run: Annotated[Path | None, typer.Option(help="Directory of the run; default: runs/demo-LANGUAGE.")] = None,
) -> None:
    """Train a translator of Home Assistant's interface strings from English, then evaluate it and try it."""
    from dragoman.cli.evaluate import run_evaluation, show
    from dragoman.cli.terminal import console, duration
    from dragoman.decode.translator import Translator

    began, folder = time.monotonic(), run or Path("runs") / f"demo-{to}"
    say = console().print
    say(
        f"[bold]English to {to}[/bold]: interface strings of Home Assistant 2026.11.0, written and translated by its "
        "community (Apache-2.0, https://www.home-assistant.io)"
    )
    _train(to, minutes, folder)
    evaluation = run_evaluation(folder, None)
    say(f"\n[bold]{len(evaluation.outputs):,} held-out strings[/bold], none of them like one in training")
    show(evaluation)
    for line in _shortfall(to, evaluation, folder):
        say(line, style="yellow", soft_wrap=True, markup=False)
    _examples(Translator.load(folder), evaluation)
    say(
        f"\n{duration(time.monotonic() - began)} in all. The run is in [bold]{_escaped(str(folder))}[/bold]; "
        f"its curves: {_escaped(str(folder))}/report.html",
        soft_wrap=True,
    )
    command = "dragoman" if shutil.which("dragoman") else os.path.relpath(sys.argv[0])
    quoted = _escaped(shlex.quote(str(folder)))
    say("\nTry next:")
    for words in (
        f'translate {quoted} "Restart the system to apply the update."',
        f"translate {quoted}",
        f"train {quoted} --resume train.budget.minutes={2 * minutes:g}",
        "train --pairs your-corpus.tsv --preset transformer-small",
    ):
        say(f"  {command} {words}", soft_wrap=True)  # a wrapped command could not be pasted


def _train(to: str, minutes: float, folder: Path) -> None:
    """Start the run, resume an interrupted one, or find it complete."""
    from dragoman.cli.watch import watch
    from dragoman.train.recipe import load
    from dragoman.train.run import resume, start

    if folder.exists():
        run = resume(folder)
    else:
        settings = [f"data.train.0.target='*/translations/{to}.json'", f"train.budget.minutes={minutes:g}"]
        run = start(load(Path(str(files("dragoman") / "recipes" / "home-assistant.yaml")), settings), folder)
    if not watch(run).complete:
        raise typer.Exit(130)


def _shortfall(to: str, evaluation: "Evaluation", folder: Path) -> list[str]:
    """Return which scores are below the expected ones, and what was short; empty where none is."""
    from dragoman.checkpoint import RunDirectory

    run = RunDirectory.open(folder)
    below = [
        f"{evaluation.scores[name].name} is below the {least:g} that two free cores reach in {MINUTES:g} minutes"
        for name, least in EXPECTED.get(to, {}).items()
        if evaluation.scores[name].value < least
    ]
    if not below:
        return []
    budget = run.config["train"]["budget"]
    return ["; ".join(below), *training_summary(run.load("last", []).progress, budget, EXPECTED_TOKENS.get(to), folder)]


def training_summary(progress: dict[str, Any], budget: dict[str, Any], expected: int | None, folder: Path) -> list[str]:
    """Return how much was learned of what was ``expected``, on how many cores, and what may help."""
    from dragoman.cli.terminal import duration
    from dragoman.train.failure import resume_command

    tokens, seconds, minutes = progress["tokens"], progress["seconds"], budget.get("minutes", MINUTES)
    lines = [
        f"learned: {progress['step']:,} steps, {tokens / 1e6:.1f}M tokens"
        + (f" of the {expected / 1e6:g}M expected" if expected else "")
        + f", in {duration(seconds)} minutes"
    ]
    if cpu := progress.get("cpu_seconds"):
        lines.append(f"used: {cpu / max(seconds, 1e-9):.1f} cores on average, of {_cores()} that this process may use")
    if expected and tokens >= expected:
        return [*lines, "so the time was sufficient: something else is wrong; please report it"]
    more = minutes * max(expected / max(tokens, 1) if expected else 2.0, 1.1)
    return [*lines, "more time helps:", f"  {resume_command(folder)} train.budget.minutes={math.ceil(more)}"]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _examples(translator: "Translator", evaluation: "Evaluation") -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    short = [o for o in evaluation.outputs if 4 <= len(o.source.split()) <= 14]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("source", "translation", "reference"):
        table.add_column(heading, overflow="fold")
    for output in short[:: max(1, len(short) // 8)][:8]:
        table.add_row(*map(_escaped, (output.source, output.output, output.reference)))
    console().print("\n[bold]From the held-out strings[/bold]")
    console().print(table)
    console().print("\n[bold]And yours[/bold]")
    for sentence, translation in zip(SENTENCES, translator.translate(SENTENCES), strict=True):
        console().print(f"  {_escaped(sentence)}  →  [bold]{_escaped(translation.text)}[/bold]")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
