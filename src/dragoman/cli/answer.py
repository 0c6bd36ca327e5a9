"""dragoman answer: the span of a text that answers a question."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.argument import RULE, STDIN, is_file
from dragoman.cli.lines import input_lines, write_lines
from dragoman.cli.live_input import is_pipe, line_batches
from dragoman.cli.options import (
    CheckpointOption,
    DeviceOption,
    OutputOption,
    PassagesOption,
    PrecisionOption,
    RunArgument,
    SpecialTokensOption,
    TopPassagesOption,
    read_passages,
)
from dragoman.cli.output import OutputFormat
from dragoman.cli.terminal import progress_bar
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.readers.answerer import Answered
    from dragoman.text.passages import Passages


def answer(
    run: RunArgument,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE | QUESTION]",
            help="A question, or a text file with one a line; without --context, JSON lines with context and question. "
            f"Default: standard input. {RULE}",
        ),
    ] = None,
    context: Annotated[
        Path | None, typer.Option("--context", "-c", help="A text file that the questions are about.")
    ] = None,
    passages: PassagesOption = None,
    top_passages: TopPassagesOption = None,
    output: OutputOption = None,
    format: Annotated[
        OutputFormat | None,
        typer.Option(
            help="text: the answer, or an empty line for none; json: also its position and probability. "
            "Default: text with --context, else json."
        ),
    ] = None,
    null_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE",
            help="Give no answer where its score exceeds that of the best span by more; default: as the run was "
            "trained, usually 0, or always an answer.",
        ),
    ] = None,
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Answer questions by spans of a text, or of the passages of a file that are about them."""
    from dragoman.decode.readers.answerer import Answerer

    batches = _batches(text, context, read_passages(passages, top_passages))
    if text is not None and not is_pipe(text):
        batches = iter(list(batches))  # what is wrong with a file is told before a model is loaded
    answerer = Answerer.load(
        run,
        checkpoint,
        null_threshold=null_threshold,
        device=device,
        special_tokens=special_tokens,
        precision=precision,
    )

    def found() -> "Iterator[tuple[str, Answered]]":
        for questions in batches:
            with progress_bar("answering", len(questions)) as progress:
                answers = answerer.ask(questions, progress)
            yield from zip((context for context, _ in questions), answers, strict=True)

    plain = format is OutputFormat.text or (format is None and (context is not None or passages is not None))
    write_lines(_as_text(found()) if plain else _as_json(found(), looked_up=passages is not None), output)


def _batches(text: str | None, context: Path | None, known: "Passages | None") -> Iterator[list[tuple[str, str]]]:
    """Return batches of pairs of context and question.

    Raises:
        ConfigError: both a context and passages are named.
    """
    from dragoman.errors import ConfigError

    if known is None:
        return _read_records(text) if context is None else _on_context(_context(context), text)
    if context is not None:
        raise ConfigError("--passages: the context is looked up there: leave --context out")
    return ([(known.context(line), line) for line in lines] for lines in line_batches(input_lines(text)))


def _context(path: Path) -> str:
    from dragoman.errors import DataError
    from dragoman.text.lines import read_lines

    context = "\n".join(read_lines(path))
    if not context.strip():
        raise DataError(f"{path}: holds no text to find answers in")
    return context


def _on_context(context: str, text: str | None) -> Iterator[list[tuple[str, str]]]:
    for lines in line_batches(input_lines(text)):
        yield [(context, question) for question in lines]


def _read_records(text: str | None) -> Iterator[list[tuple[str, str]]]:
    from dragoman.errors import DataError
    from dragoman.text.formats.questions import text_at
    from dragoman.text.lines import parse_json

    name = "standard input" if text in (None, STDIN) else text
    if text not in (None, STDIN) and not is_file(text):
        raise DataError(
            f"{text}: no such file of JSON lines; to ask this question about a text, name it with --context"
        )
    numbers = itertools.count(1)
    for lines in line_batches(input_lines(text, as_kind="text")):
        questions = []
        for number, line in zip(numbers, lines, strict=False):
            if line and not line.isspace():
                where = f"{name}:{number}"
                record = parse_json(line, where)
                questions.append((text_at(record, "context", where), text_at(record, "question", where)))
        yield questions


def _as_text(found: "Iterable[tuple[str, Answered]]") -> Iterator[str]:
    from dragoman.text.lines import on_one_line

    for _, answered in found:
        yield on_one_line(answered.answer)


def _as_json(found: "Iterable[tuple[str, Answered]]", *, looked_up: bool) -> Iterator[str]:
    for row, (context, answered) in enumerate(found, 1):
        record = {
            "row": row,
            "question": answered.question,
            "answer": answered.answer,
            "start": answered.start,
            "probability": answered.probability,
        }
        yield json_text(record | ({"context": context} if looked_up else {}))
