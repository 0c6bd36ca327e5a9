"""dragoman transcribe: what is said in recordings, as text."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, OutputOption, PrecisionOption, RunArgument
from dragoman.cli.output import OutputFormat
from dragoman.cli.terminal import progress_bar


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
    with progress_bar("hearing", len(recordings)) as progress:
        found = transcriber.transcribe(
            recordings,
            language=language,
            task=task,
            beam=beam,
            max_new_tokens=max_new_tokens,
            progress=progress,
        )
    if format is OutputFormat.text:
        write_lines((one.text for one in found), output)
        return
    names = ("text", "language", "seconds", "windows")
    rows = [
        {"file": str(path)} | {name: getattr(one, name) for name in names}
        for path, one in zip(recordings, found, strict=True)
    ]
    write_lines((json.dumps(row, ensure_ascii=False) for row in rows), output)
