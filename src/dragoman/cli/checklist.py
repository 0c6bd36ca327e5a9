"""dragoman checklist: one page on a model before it goes live."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, PrecisionOption, RunArgument, writable_file
from dragoman.decode.defaults import BEAM
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.inspect.checklist.collect import Checklist
    from dragoman.inspect.checklist.row import ChecklistRow

STYLES = {"good": "green", "look": "yellow", "poor": "red", "not measured": "dim"}


def checklist(
    run: RunArgument,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="FILES", help="Test examples, in the format of the task; default: those that the run holds out."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PAGE.html", help="Write the page here.", callback=writable_file),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON instead of a table.")] = False,
    sentences: Annotated[int, typer.Option(min=1, help="Most test examples for quality.")] = 1000,
    sample: Annotated[int, typer.Option(min=1, help="Most test examples for each change of a text.")] = 200,
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept at each step; 1 is greedy.")] = BEAM,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Check a model before it goes live: quality by slice, robustness, long texts, numbers, confidence, overlap of
    training and test, licence. A verdict a row, with what was measured on how many. For translators, language models,
    and classifiers of texts."""
    from dragoman.decode.translator import search_for_beam
    from dragoman.inspect.checklist.collect import make_checklist
    from dragoman.inspect.checklist.material import ChecklistSettings

    settings = ChecklistSettings(
        run=run,
        search=search_for_beam(beam),
        checkpoint=checkpoint,
        device=device,
        precision=precision,
        sentences=sentences,
        sample=sample,
    )
    made = make_checklist(settings, test, report=_report)
    if output is not None:
        _write(made, output)
    if as_json:
        print(json_text(made.plain(), indent=1))
    else:
        _show(made, output)


def _report(row: "ChecklistRow") -> None:
    """Show that a row has been measured."""
    from dragoman.cli.terminal import console

    if console(errors=True).is_terminal:
        print(f"dragoman: {row.group}: {row.title}: {row.verdict}", file=sys.stderr)


def _write(made: "Checklist", output: Path) -> None:
    from dragoman.inspect.checklist.page import as_page
    from dragoman.output_file import open_output

    with open_output(output) as file:
        file.write(as_page(made))


def _show(made: "Checklist", output: Path | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("verdict", "question", "finding"):
        table.add_column(heading)
    for row in made.rows:
        style = STYLES[row.verdict]
        table.add_row(f"[{style}]{row.verdict}[/{style}]", escape(f"{row.group}: {row.title}"), escape(row.finding))
    console().print(table)
    console().print()
    console().print(", ".join(f"{count} {verdict}" for verdict, count in made.counts().items() if count))
    if output is not None:
        console().print(f"page: {output}", markup=False)
