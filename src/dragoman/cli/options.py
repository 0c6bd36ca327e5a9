"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from dragoman.errors import CheckpointError

SHOWN = 5
"""Runs that a message names."""


def the_run(path: Path) -> Path:
    """``path``, or the one run in it where it is a folder that holds runs.

    Raises:
        CheckpointError: it holds several.
    """
    from dragoman.checkpoint import CONFIG

    if not path.is_dir() or (path / CONFIG).is_file():
        return path
    try:
        runs = sorted(below for below in path.iterdir() if (below / CONFIG).is_file())
    except OSError:  # told when the run is opened
        return path
    if len(runs) > 1:
        named = ", ".join(map(str, runs[:SHOWN])) + (", ..." if len(runs) > SHOWN else "")
        raise CheckpointError(f"{path}: a folder of {len(runs)} runs, name one of them: {named}")
    return runs[0] if runs else path


RunArgument = Annotated[Path, typer.Argument(help="The directory of a run.", callback=the_run)]
"""For commands that only read a run: a folder that holds a single run stands for that."""
OwnRunArgument = Annotated[Path, typer.Argument(help="The directory of a run.")]
"""For commands that write into a run, which they do not guess."""
TextArgument = Annotated[
    str | None,
    typer.Argument(metavar="[FILE | SENTENCE]", help="A text file or one sentence; default: standard input."),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; default: standard output.")]
CheckpointOption = Annotated[str, typer.Option(help="best, last, or the name of a checkpoint.")]
SpecialTokensOption = Annotated[
    bool,
    typer.Option(
        "--special-tokens", help="Read special tokens that are spelt out in the text, such as <|im_start|>, as tokens."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
PrecisionOption = Annotated[
    str, typer.Option(help="float32, bfloat16 (or bf16), int8 (CPUs: fastest, nearly the same), or auto.")
]
