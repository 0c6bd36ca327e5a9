"""dragoman classify: a label for each text or image, and how sure the model is."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.argument import RULE
from dragoman.cli.lines import write_lines
from dragoman.cli.live_input import input_batches
from dragoman.cli.options import AsOption, CheckpointOption, ColumnOption, DeviceOption, OutputOption, RunArgument
from dragoman.cli.output import Format
from dragoman.cli.terminal import tracked

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
        Format, typer.Option(help="text: label and probability between tabs; json: those of every label.")
    ] = Format.text,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Label each line of a file, a sentence, or images: the label, a tab, and its probability."""
    from dragoman.decode.readers.classifier import Classifier

    classifier = Classifier.load(run, which=checkpoint, device=device)

    def found() -> "Iterator[Classified]":
        for given, places in input_batches(text, classifier.material, column=column, as_kind=as_kind):
            with tracked("classifying", len(given)) as progress:
                classified = classifier.classify(given, progress, places)
            yield from classified

    write_lines(_as_json(found()) if format is Format.json else _as_text(found()), output)


def _as_text(found: "Iterable[Classified]") -> Iterator[str]:
    for one in found:
        yield f"{one.label}\t{one.probability:.4f}"


def _as_json(found: "Iterable[Classified]") -> Iterator[str]:
    for row, one in enumerate(found, 1):
        record = {"row": row, "text": one.text, "label": one.label, "probabilities": one.probabilities}
        yield json.dumps(record, ensure_ascii=False)
