"""dragoman answer: the part of a text that answers a question."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.lines import given_lines, write_lines
from dragoman.cli.options import CheckpointOption, DeviceOption, OutputOption, RunArgument, SpecialTokensOption
from dragoman.cli.output import Format
from dragoman.cli.terminal import tracked

if TYPE_CHECKING:
    from dragoman.decode.readers.answerer import Answered


def answer(
    run: RunArgument,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE | QUESTION]",
            help="A question, or a text file with one a line; without --context, JSON lines with context and question. "
            "Default: standard input.",
        ),
    ] = None,
    context: Annotated[
        Path | None, typer.Option("--context", "-c", help="A text file, all of which the questions are asked on.")
    ] = None,
    output: OutputOption = None,
    format: Annotated[
        Format | None,
        typer.Option(
            help="text: the answer alone, an empty line for none; json: where it begins and how sure it is, too. "
            "Default: text with --context, else json."
        ),
    ] = None,
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Answer questions by parts of a text."""
    from dragoman.decode.readers.answerer import Answerer

    asked = list(_of_records(text)) if context is None else list(_on(context, text))
    answerer = Answerer.load(run, which=checkpoint, device=device, special_tokens=special_tokens)
    with tracked("answering", len(asked)) as progress:
        found = answerer.ask(asked, progress)
    plain = format is Format.text or (format is None and context is not None)
    write_lines(_as_text(found) if plain else _as_json(found), output)


def _on(path: Path, text: str | None) -> Iterator[tuple[str, str]]:
    from dragoman.errors import DataError
    from dragoman.text.formats.lines import read_lines

    context = "\n".join(read_lines(path))
    if not context.strip():
        raise DataError(f"{path}: no text in it to find answers in")
    yield from ((context, question) for question in given_lines(text))


def _of_records(text: str | None) -> Iterator[tuple[str, str]]:
    from dragoman.errors import DataError
    from dragoman.text.formats.lines import parse_json
    from dragoman.text.formats.questions import text_at

    name = "standard input" if text is None else text
    if text is not None and not Path(text).is_file():
        raise DataError(f"{text}: no such file of JSON lines; to ask this question of a text, name the text: --context")
    for number, line in enumerate(given_lines(text), 1):
        if line and not line.isspace():
            where = f"{name}:{number}"
            record = parse_json(line, where)
            yield text_at(record, "context", where), text_at(record, "question", where)


def _as_text(found: "Sequence[Answered]") -> Iterator[str]:
    for one in found:
        yield " ".join(one.answer.split())


def _as_json(found: "Sequence[Answered]") -> Iterator[str]:
    for row, one in enumerate(found, 1):
        record = {
            "row": row,
            "question": one.question,
            "answer": one.answer,
            "start": one.start,
            "probability": one.probability,
        }
        yield json.dumps(record, ensure_ascii=False)
