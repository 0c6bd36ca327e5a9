"""dragoman probe: what a linear classifier can read from each layer of a model."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, FromOption, RunArgument, ToOption
from dragoman.cli.output import OutputFormat
from dragoman.errors import ConfigError, DataError
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.inspect.probes import ProbeReport
    from dragoman.text.formats.labelled import LabelledText
    from dragoman.text.formats.tagged import TaggedText


class LabelledUnit(StrEnum):
    """Unit that a label belongs to."""

    auto = "auto"
    words = "words"
    sentences = "sentences"


def probe(
    run: RunArgument,
    labels: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Words with tags (a word, a tab and its tag in each line, an empty line between sentences; or .jsonl "
            "with tokens and labels), or sentences with labels (.tsv, .csv, .jsonl; .txt with the label first).",
        ),
    ],
    unit: Annotated[
        LabelledUnit, typer.Option("--of", help="Unit that the labels belong to; auto: by the file's form.")
    ] = LabelledUnit.auto,
    places: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="A place or pattern, such as 'encoder.*.mixer.heads:2'; may be repeated. Default: the embedding and "
            "the residual stream after each layer.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, each with a split and a control task.")] = 3,
    held_out: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Part of the sentences that probes are measured on.")
    ] = 0.2,
    strength: Annotated[float, typer.Option(help="Inverse strength of the penalty: scikit-learn's C.")] = 1.0,
    sentences: Annotated[int, typer.Option(min=1, help="Largest number of sentences, from the beginning.")] = 1000,
    format: Annotated[OutputFormat, typer.Option(help="text: a table; json: one object.")] = OutputFormat.text,
    source_language: FromOption = None,
    target_language: ToOption = None,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Fit a logistic regression on what stands at each layer, to predict the tags of words or the labels of sentences.

    Beside its accuracy on held-out sentences stand those of the commonest label, of a lookup by word, and of a control
    task with random labels. Selectivity is accuracy minus that of the control task. Needs scikit-learn: the extra
    inspect.
    """
    from dragoman.cli.terminal import progress_bar
    from dragoman.inspect.probes import probe
    from dragoman.inspect.subject import Subject

    if strength <= 0:
        raise ConfigError(f"--strength {strength:g}: must be above 0")
    examples = _read(labels, unit)[:sentences]
    subject = Subject.open(
        run, checkpoint, device=device, source_language=source_language, target_language=target_language
    )
    with progress_bar("reading", len(examples)) as progress:
        found = probe(subject, examples, places, seeds=seeds, held_out=held_out, strength=strength, progress=progress)
    if format is OutputFormat.json:
        print(json_text(found.plain()))
    else:
        _print(found, seeds)


def _read(path: str, unit: LabelledUnit) -> "list[TaggedText] | list[LabelledText]":
    from dragoman.text.formats.labelled import guess_labelled, read_labelled
    from dragoman.text.formats.tagged import guess_tagged, read_tagged

    tagged = _has_tags(path) if unit is LabelledUnit.auto else unit is LabelledUnit.words
    return read_tagged(guess_tagged(path)) if tagged else read_labelled(guess_labelled(path))


def _has_tags(path: str) -> bool:
    """Guess whether a file holds a label for each word: by its first lines.

    Raises:
        DataError: no such file, or an empty one.
    """
    from itertools import islice

    from dragoman.text.compressed import extension
    from dragoman.text.lines import read_lines

    if extension(path) in (".conll", ".iob", ".bio"):
        return True
    if extension(path) == ".csv":
        return False
    head = [line for line in islice(read_lines(path), 200) if line.strip()]
    if not head:
        raise DataError(f"{path}: holds no labels: give a word and its tag, or a sentence and its label, in each line")
    if extension(path) in (".jsonl", ".ndjson"):
        return bool(head) and '"tokens"' in head[0]
    if extension(path) == ".txt":
        return bool(head) and all(len(line.split()) == 2 for line in head)
    return bool(head) and all(" " not in line.split("\t")[0].strip() for line in head)


def _print(found: "ProbeReport", seeds: int) -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    print(f"{found.examples:,} {found.kind} of {found.sentences:,} sentences, {len(found.labels)} labels")
    known = "its word" if found.kind == "words" else "its first word"
    print(
        f"accuracy of the commonest label: {found.majority:.1%}; of the commonest label of {known}: {found.by_word:.1%}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, heading in enumerate(("place", "accuracy", "±", "control", "selectivity", "±")):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in found.places:
        numbers = (row.accuracy, row.deviation, row.control, row.selectivity, row.selectivity_deviation)
        mark = "*" if not row.converged else ""
        table.add_row(row.place + mark, *(f"{100 * number:.1f}" for number in numbers))
    console().print(table, markup=False)
    if not all(row.converged for row in found.places):
        print("* stopped before it converged: a smaller --strength helps")
    points = ", ".join(f"{point.accuracy:.1%} of {point.examples:,}" for point in found.curve)
    print(f"learning curve at {found.best.place}: {points} {found.kind}")
    print(f"percentages on held-out sentences, means of {seeds} seeds; ± is the standard deviation over seeds")
