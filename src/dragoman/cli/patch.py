"""dragoman patch: the part of a model that carries the difference between two inputs; the roles of its heads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.cli.options import (
    CheckpointOption,
    DeviceOption,
    FromOption,
    OutputOption,
    RunArgument,
    ToOption,
    refuse_options,
)
from dragoman.cli.output import OutputFormat
from dragoman.errors import ConfigError, DataError
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.inspect.contrast import Contrast
    from dragoman.inspect.patch_map import HeadCell, PatchMap
    from dragoman.inspect.subject import Subject

SHOWN = 10
"""Number of heads that the text output names."""
COLUMNS = 6
"""Tokens in one table, so that it fits on 80 columns."""


def patch(
    run: RunArgument,
    clean: Annotated[
        str | None, typer.Argument(metavar="CLEAN", help="A text file or a sentence: what the model answers well.")
    ] = None,
    corrupt: Annotated[
        str | None,
        typer.Argument(
            metavar="CORRUPT", help="The same with something changed, line for line, in as many tokens as in CLEAN."
        ),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE | SENTENCE",
            help="The answer that is measured, line for line; default: the model's own to CLEAN (of a language model "
            "its next token).",
        ),
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Option(metavar="PLACE", help="A place or pattern, such as 'decoder.*.cross.output'; may be repeated."),
    ] = None,
    path: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="FROM TO",
            help="Only the direct path between two places, such as encoder.0.mixer.heads:1 decoder.1.cross.keys; after "
            ": heads, after @ tokens.",
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Instead: the role of each attention head on the lines of a text file, the loss without it, and which "
            "heads can be cut. --answer then names translations of the lines.",
        ),
    ] = None,
    parses: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --heads: sentences with the head of each word (word, tab, number; CoNLL-U) or in brackets, "
            "for syntactic heads.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="NATS", help="With --heads: largest rise of the loss per token by a cut; default: 0.01."
        ),
    ] = None,
    texts: Annotated[
        int | None,
        typer.Option(min=1, help="With --heads: largest number of lines, from the beginning; default: 50."),
    ] = None,
    output: OutputOption = None,
    format: Annotated[OutputFormat, typer.Option(help="text: tables; json: one object.")] = OutputFormat.text,
    source_language: FromOption = None,
    target_language: ToOption = None,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Put what a model computes on the clean text into its run on the corrupt one, place by place, and show how much of
    the clean answer returns: 1 is all of it, 0 nothing.

    With -o map.svg a picture is written, with -o map.json all numbers. With --heads the roles of attention heads.
    """
    from dragoman.cli.head_roles import show_head_roles
    from dragoman.cli.terminal import progress_bar
    from dragoman.inspect.patch_map import patch_heads, patch_map
    from dragoman.inspect.subject import Subject

    opening = {"device": device, "source_language": source_language, "target_language": target_language}
    _check_output(output, (".json",) if heads else (".svg", ".json"))
    if heads is not None:
        if clean is not None or places or path:
            raise ConfigError("--heads: reads its own file: leave the texts, --places and --path out")
        subject = Subject.open(run, checkpoint, **opening)
        options = {"tolerance": tolerance, "texts": texts, "output": output, "format": format}
        show_head_roles(subject, heads, answer, parses, **options)
        return
    of_heads = {"--parses": parses, "--tolerance": tolerance is not None, "--texts": texts}
    refuse_options(of_heads, "is for --heads: name a text file there, or leave this out")
    if path is not None and (output is not None or places):
        raise ConfigError("--path: prints one number for each pair: leave --places and -o out")
    lines = _aligned_lines(clean, corrupt, answer)
    subject = Subject.open(run, checkpoint, **opening)
    contrasts = [_contrast(subject, number, *row) for number, row in enumerate(lines, 1)]
    if path is not None:
        _show_path(contrasts, path, format)
        return
    with progress_bar("patching", None) as progress:
        found = patch_map(contrasts, places, progress)
        carriers = [] if places else patch_heads(contrasts, progress=progress)
    if output is not None:
        _write(found, carriers, output)
    if format is OutputFormat.json:
        print(json_text(_plain(found, carriers)))
    else:
        _print_map(found)
        _print_heads(carriers)


def _check_output(output: Path | None, endings: tuple[str, ...]) -> None:
    if output is not None and output.suffix not in endings:
        picture = ".svg for a picture or " if ".svg" in endings else ""
        raise ConfigError(f"{output}: name it {picture}.json for all numbers")


def _aligned_lines(clean: str | None, corrupt: str | None, answer: str | None) -> list[tuple[str, str, str | None]]:
    """Return rows of clean text, corrupt text and answer.

    Raises:
        ConfigError: one of the texts is missing.
        DataError: unlike numbers of lines.
    """
    from dragoman.cli.lines import input_lines

    if clean is None or corrupt is None:
        raise ConfigError("patch: give a clean and a corrupt text, or a file with --heads")
    given = [list(input_lines([text])) for text in (clean, corrupt)]
    answers = [None] * len(given[0]) if answer is None else list(input_lines([answer]))
    counts = {"clean": len(given[0]), "corrupt": len(given[1]), "answer": len(answers)}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items() if name != "answer" or answer)
        raise DataError(f"lines: {told}: each line of one belongs to the same line of the others")
    if not given[0]:
        raise DataError(f"{clean}: holds no text")
    return list(zip(*given, answers, strict=True))


def _contrast(subject: "Subject", number: int, clean: str, corrupt: str, answer: str | None) -> "Contrast":
    from dragoman.inspect.contrast import Contrast

    try:
        return Contrast.of(subject, clean, corrupt, answer)
    except DataError as error:
        raise DataError(f"line {number}: {error}") from None


def _show_path(contrasts: "list[Contrast]", path: tuple[str, str], format: OutputFormat) -> None:
    from dragoman.inspect.interventions import Site

    sender, receiver = (Site.parse(text) for text in path)
    for number, pair in enumerate(contrasts, 1):
        found = pair.path(sender, receiver)
        if format is OutputFormat.json:
            record = {"row": number, "from": str(sender), "to": str(receiver)}
            print(json_text(record | {"recovered": found.recovered, "log_prob": found.log_prob}))
        else:
            print(f"{found.recovered:.3f}\t{sender} -> {receiver}")


def _plain(found: "PatchMap", heads: "list[HeadCell]") -> dict[str, Any]:
    from dataclasses import asdict

    return found.plain() | {"heads": [asdict(head) for head in heads]}


def _write(found: "PatchMap", heads: "list[HeadCell]", output: Path) -> None:
    from dragoman.inspect.patch_map import map_svg
    from dragoman.output_file import open_output

    content = map_svg(found) if output.suffix == ".svg" else json_text(_plain(found, heads), indent=1) + "\n"
    with open_output(output) as file:
        file.write(content.encode())


def _print_map(found: "PatchMap") -> None:
    from dragoman.cli.terminal import console

    answer = f" of {''.join(found.answer).strip()!r}" if found.contrasts == 1 else f", mean of {found.contrasts} pairs"
    console().print(
        f"log-probability{answer}: {found.clean:.2f} clean, {found.corrupt:.2f} corrupt", markup=False, soft_wrap=True
    )
    if found.reversed:
        console().print(
            f"of {found.reversed} the answer is likelier after the corrupt text: swap the texts, or choose others",
            markup=False,
        )
    panels: dict[tuple[str, ...], list[Any]] = {}
    for row in found.rows:
        panels.setdefault((row.place.split(".")[0], *(cell.label for cell in row.cells)), []).append(row)
    for columns, rows in panels.items():
        for start in range(0, len(columns) - 1, COLUMNS) or [0]:
            _print_panel(columns[1:], rows, start)


def _print_panel(labels: tuple[str, ...], rows: list[Any], start: int) -> None:
    """Print as many columns as fit on a narrow terminal; the place as a whole stands in the first part."""
    from rich.markup import escape
    from rich.table import Table

    from dragoman.cli.terminal import console

    whole = start == 0
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("place", no_wrap=True)
    for heading in (["all"] if whole else []) + [label.strip()[:6] for label in labels[start : start + COLUMNS]]:
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for row in rows:
        cells = ([row.whole] if whole else []) + list(row.cells[start : start + COLUMNS])
        table.add_row(row.place, *(f"{round(cell.recovered, 2) + 0.0:.2f}" for cell in cells))
    console().print(table, markup=False)


def _print_heads(heads: "list[HeadCell]") -> None:
    from dragoman.cli.terminal import console

    if heads:
        console().print("\nheads that carry most, each patched at all tokens:", markup=False)
    for head in heads[:SHOWN]:
        interval = "" if head.low is None else f"\t{head.low:.3f} to {head.high:.3f}"
        console().print(f"{head.recovered:.3f}\t{head.name}{interval}", markup=False)
