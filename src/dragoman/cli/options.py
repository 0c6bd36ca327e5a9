"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[Path, typer.Argument(help="The directory of a run.")]
TextArgument = Annotated[
    str | None,
    typer.Argument(metavar="[FILE | SENTENCE]", help="A text file or one sentence; default: standard input."),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; default: standard output.")]
CheckpointOption = Annotated[str, typer.Option(help="best, last, or the name of a checkpoint.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
PrecisionOption = Annotated[
    str, typer.Option(help="float32, bfloat16 (or bf16), int8 (CPUs: fastest, nearly the same), or auto.")
]
