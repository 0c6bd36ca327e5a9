"""dragoman tag: a label for each word."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.lines import given_lines, write_lines
from dragoman.cli.options import (
    CheckpointOption,
    DeviceOption,
    OutputOption,
    RunArgument,
    SpecialTokensOption,
    TextArgument,
)
from dragoman.cli.output import Format
from dragoman.cli.terminal import tracked

if TYPE_CHECKING:
    from dragoman.decode.readers.tagger import TaggedWords


def tag(
    run: RunArgument,
    text: TextArgument = None,
    output: OutputOption = None,
    format: Annotated[
        Format, typer.Option(help="text: a word and its label in each line; json: a sentence, with probabilities.")
    ] = Format.text,
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Label each word of a sentence, or of each line of a file. Words are what stands between spaces: a word, a tab and
    its label in each line, and an empty line after each sentence."""
    from dragoman.decode.readers.tagger import Tagger

    sentences = [line.split() for line in given_lines(text)]
    tagger = Tagger.load(run, which=checkpoint, device=device, special_tokens=special_tokens)
    with tracked("tagging", len(sentences)) as progress:
        found = tagger.tag(sentences, progress)
    write_lines(_as_json(found) if format is Format.json else _as_columns(found), output)


def _as_columns(found: "Sequence[TaggedWords]") -> Iterator[str]:
    for sentence in found:
        for token, label in zip(sentence.tokens, sentence.labels, strict=True):
            yield f"{token}\t{label}"
        yield ""


def _as_json(found: "Sequence[TaggedWords]") -> Iterator[str]:
    for row, one in enumerate(found, 1):
        record = {"row": row, "tokens": one.tokens, "labels": one.labels, "probabilities": one.probabilities}
        yield json.dumps(record, ensure_ascii=False)
