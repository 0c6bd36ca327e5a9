"""dragoman transcribe: what is said in recordings, as text."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, OutputOption, PrecisionOption, RunArgument
from dragoman.cli.output import OutputFormat
from dragoman.cli.terminal import progress_bar
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.transcriber import Transcription


def transcribe(
    run: RunArgument,
    recordings: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="WAV files at the model's rate, which is 16 kHz for Whisper."),
    ],
    output: OutputOption = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Code of the language that is spoken, such as de; default: that of the folder the model came from, or "
            "the one it hears."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="transcribe, or translate for a translation into English.")] = None,
    beam: Annotated[
        int | None,
        typer.Option(min=1, help="Hypotheses kept; default: the search that came with the model, or 1."),
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of a window of 30 s.")] = None,
    format: Annotated[
        OutputFormat,
        typer.Option(help="text: a line for each file; json: with its language and the text of each window."),
    ] = OutputFormat.text,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Write down what is said in WAV files: a line for each."""
    from dragoman.cli.lines import write_lines
    from dragoman.decode.transcriber import Transcriber

    transcriber = Transcriber.load(run, checkpoint, device=device, precision=precision)
    options = {"language": language, "task": task, "beam": beam, "max_new_tokens": max_new_tokens}

    def found() -> "Iterator[tuple[Path, Transcription]]":
        with progress_bar("hearing", len(recordings)) as progress:
            for first in range(0, len(recordings), GROUP):
                group = recordings[first : first + GROUP]
                yield from zip(group, transcriber.transcribe(group, **options), strict=True)
                progress(first + len(group), len(recordings))

    line = _as_json if format is OutputFormat.json else _as_text
    write_lines((line(path, one) for path, one in found()), output)


GROUP = 8
"""Files that are read at a time."""


def _as_text(path: Path, said: "Transcription") -> str:
    return " ".join(said.text.splitlines())


def _as_json(path: Path, said: "Transcription") -> str:
    names = ("text", "language", "seconds", "windows")
    return json_text({"file": str(path)} | {name: getattr(said, name) for name in names})
