"""dragoman translate: text in, text out, line for line."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from dragoman.errors import DataError

if TYPE_CHECKING:
    from dragoman.decode.translator import Translation, Translator


def translate(
    run: Annotated[Path, typer.Argument(help="The directory of a run.")],
    text: Annotated[
        str | None,
        typer.Argument(metavar="[FILE | SENTENCE]", help="A text file or one sentence; default: standard input."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; default: standard output.")
    ] = None,
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept at each step; 1 is greedy, fastest.")] = 5,
    checkpoint: Annotated[str, typer.Option(help="best, last, or the name of a checkpoint.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Translate a file, a sentence, or what you type. As many lines come out as went in; an empty line stays empty."""
    from dragoman.decode.translator import Translator
    from dragoman.durable import replace_with

    typed = text is None and sys.stdin.isatty()
    lines = None if typed else _lines(text)
    translator = Translator.load(run, which=checkpoint, device=device)
    if lines is None:
        _converse(translator, beam)
    elif output is None:
        _write(translator.stream(lines, beam=beam), sys.stdout)
    else:
        results = translator.stream(lines, beam=beam)
        replace_with(output, lambda partial: _write_file(results, partial))


def _lines(text: str | None) -> Iterable[str]:
    from dragoman.text.lines import decode_lines, read_lines

    if text is None:
        return decode_lines(sys.stdin.buffer, "standard input")
    if Path(text).is_file():
        return read_lines(text)
    if text.endswith((".txt", ".gz")) or ("/" in text and " " not in text):
        raise DataError(f"{text}: no such file")
    return [text]


def _write_file(results: "Iterator[Translation]", path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        _write(results, file)


def _write(results: "Iterator[Translation]", file: TextIO) -> None:
    """A line each; what is to be said about one goes to standard error."""
    for result in results:
        print(result.text, file=file, flush=file is sys.stdout)
        for warning in result.warnings:
            print(f"dragoman: {warning}", file=sys.stderr)


def _converse(translator: "Translator", beam: int) -> None:
    print("Type a sentence and press Enter; Ctrl-D ends.", file=sys.stderr)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            _write(iter(translator.translate([input("> ")], beam=beam)), sys.stdout)
    print(file=sys.stderr)
