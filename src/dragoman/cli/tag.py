"""dragoman tag: a label for each word."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.lines import input_lines, write_lines
from dragoman.cli.live_input import line_batches
from dragoman.cli.options import (
    AsOption,
    CheckpointOption,
    ColumnOption,
    DeviceOption,
    OutputOption,
    PrecisionOption,
    RunArgument,
    SpecialTokensOption,
    TextArgument,
)
from dragoman.cli.output import OutputFormat
from dragoman.cli.terminal import progress_bar
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.readers.tagger import TaggedWords


def tag(
    run: RunArgument,
    text: TextArgument = None,
    output: OutputOption = None,
    column: ColumnOption = None,
    as_kind: AsOption = None,
    format: Annotated[
        OutputFormat,
        typer.Option(
            help="text: a word and its label in each line; json: a sentence in each line, with probabilities."
        ),
    ] = OutputFormat.text,
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Label each word of a sentence, or of each line of a file. Words are separated by spaces. Output: a word, a tab
    and its label in each line, and an empty line after each sentence."""
    from dragoman.decode.readers.tagger import Tagger

    lines = input_lines(text, column=column, as_kind=as_kind)
    tagger = Tagger.load(run, checkpoint=checkpoint, device=device, special_tokens=special_tokens, precision=precision)

    def found() -> "Iterator[TaggedWords]":
        for batch in line_batches(lines):
            with progress_bar("tagging", len(batch)) as progress:
                tagged = tagger.tag([line.split() for line in batch], progress)
            yield from tagged

    write_lines(_as_json(found()) if format is OutputFormat.json else _as_columns(found()), output)


def _as_columns(found: "Iterable[TaggedWords]") -> Iterator[str]:
    for sentence in found:
        for token, label in zip(sentence.tokens, sentence.labels, strict=True):
            yield f"{token}\t{label}"
        yield ""


def _as_json(found: "Iterable[TaggedWords]") -> Iterator[str]:
    for row, sentence in enumerate(found, 1):
        record = {
            "row": row,
            "tokens": sentence.tokens,
            "labels": sentence.labels,
            "probabilities": sentence.probabilities,
        }
        yield json_text(record)
