"""dragoman demo: a translator of interface strings, from nothing, in some ten minutes."""

import os
import shutil
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
EXPECTED = {"es": {"bleu": 42.0, "chrf": 67.0}, "de": {"chrf": 57.0}}
"""What two cores reach in the default time, at least."""


def demo(
    to: Annotated[
        str, typer.Option(help="Target language, as Home Assistant names it: es, de, fr, nl, pl, pt-BR, sv, ...")
    ] = "es",
    minutes: Annotated[float, typer.Option(min=0.1, help="Time to learn.")] = 9.0,
    run: Annotated[Path | None, typer.Option(help="Directory of the run; default: runs/demo-LANGUAGE.")] = None,
) -> None:
    """Learn to translate the interface strings of Home Assistant from English, then measure it and try it."""
    from dragoman.cli.evaluate import evaluated, show
    from dragoman.cli.terminal import console, duration
    from dragoman.decode.translator import Translator

    began, folder = time.monotonic(), run or Path("runs") / f"demo-{to}"
    say = console().print
    say(
        f"[bold]English to {to}[/bold]: interface strings of Home Assistant 2026.11.0, written and translated by its "
        "community (Apache-2.0, https://www.home-assistant.io)"
    )
    _train(to, minutes, folder)
    evaluation = evaluated(folder, None)
    say(f"\n[bold]{len(evaluation.outputs):,} held-out strings[/bold], none of them like one that was trained on")
    show(evaluation)
    _shortfall(to, evaluation)
    _examples(Translator.load(folder), evaluation)
    say(
        f"\n{duration(time.monotonic() - began)} in all. The run is in [bold]{folder}[/bold]; "
        f"its curves: {folder}/report.html"
    )
    command = "dragoman" if shutil.which("dragoman") else os.path.relpath(sys.argv[0])
    say(f'\nTry next:\n  {command} translate {folder} "Restart the system to apply the update."')
    say(f"  {command} translate {folder}")
    say(f"  {command} train {folder} --resume train.budget.minutes={2 * minutes:g}")
    say(f"  {command} train --pairs your-corpus.tsv --preset transformer-small")


def _train(to: str, minutes: float, folder: Path) -> None:
    """Begin, go on with what was interrupted, or find it done."""
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


def _shortfall(to: str, evaluation: "Evaluation") -> None:
    from dragoman.cli.terminal import console

    for name, least in EXPECTED.get(to, {}).items():
        score = evaluation.scores[name]
        if score.value < least:
            console().print(
                f"[yellow]{score.name} is below the {least:g} that two cores reach: this machine was too slow or too "
                "busy for the time given; more --minutes help.[/yellow]"
            )


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
