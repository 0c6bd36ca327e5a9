"""dragoman classify: a label and its probability for each text or image."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.argument import RULE
from dragoman.cli.lines import input_batches, write_lines
from dragoman.cli.options import (
    AsOption,
    CheckpointOption,
    ColumnOption,
    DeviceOption,
    OutputOption,
    PrecisionOption,
    RunArgument,
    SpecialTokensOption,
)
from dragoman.cli.output import OutputFormat
from dragoman.cli.terminal import progress_bar
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.readers.classifier import Classified


def classify(
    run: RunArgument,
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE | SENTENCE",
            help="Text files, a file with --column, or one sentence; default: standard input. For images: a file, or a "
            f"folder of them; an array in a .npy file for these and for frames. Of texts: {RULE}",
        ),
    ] = None,
    output: OutputOption = None,
    column: ColumnOption = None,
    as_kind: AsOption = None,
    format: Annotated[
        OutputFormat,
        typer.Option(
            help="text: label and probability between tabs (for every label, where a text may have several; the value "
            "in a regression); json: probabilities of every label."
        ),
    ] = OutputFormat.text,
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Label each line of a file, a sentence, or images: the label, a tab, and its probability."""
    from dragoman.decode.readers.classifier import Classifier

    classifier = Classifier.load(
        run, checkpoint=checkpoint, device=device, special_tokens=special_tokens, precision=precision
    )

    def found() -> "Iterator[Classified]":
        for given, places in input_batches(text, classifier.material, column=column, as_kind=as_kind):
            with progress_bar("classifying", len(given)) as progress:
                classified = classifier.classify(given, progress, places)
            yield from classified

    lines = _as_json if format is OutputFormat.json else _as_text
    write_lines(lines(found(), classifier.problem_type), output)


SEVERAL = 0.5
"""Probability from which a label is assigned where a text may have several."""


def _as_text(found: "Iterable[Classified]", problem_type: str) -> Iterator[str]:
    for classified in found:
        if problem_type == "regression" and len(classified.probabilities) == 1:
            yield f"{classified.probability:.4f}"
        elif problem_type == "single_label":
            yield f"{classified.label}\t{classified.probability:.4f}"
        else:
            ranked = sorted(classified.probabilities.items(), key=lambda label: -label[1])
            yield "\t".join(f"{label}\t{number:.4f}" for label, number in ranked)


def _as_json(found: "Iterable[Classified]", problem_type: str) -> Iterator[str]:
    for row, classified in enumerate(found, 1):
        answer: dict[str, object] = {"label": classified.label, "probabilities": classified.probabilities}
        if problem_type == "regression":
            answer = {"values": classified.probabilities}
        elif problem_type == "multi_label":
            labels = [label for label, number in classified.probabilities.items() if number >= SEVERAL]
            answer = {"labels": labels, "probabilities": classified.probabilities}
        yield json_text({"row": row, "text": classified.text} | answer)
