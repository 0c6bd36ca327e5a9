"""dragoman merge: adapters folded into their base weights."""

from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.options import CheckpointOption, writable_folder


def merge(
    run: Annotated[Path, typer.Argument(help="The directory of a run that trained adapters (start_from.lora).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The run directory to create; default: RUN-merged.", callback=writable_folder
        ),
    ] = None,
    checkpoint: CheckpointOption = "best",
) -> None:
    """Write a run whose weights have the adapters folded in: the same outputs from a plain model."""
    from dragoman.train.merging import merge_adapters

    merged = merge_adapters(run, output or run.resolve().with_name(f"{run.resolve().name}-merged"), checkpoint)
    print(f"{merged.path}: a run without adapters, which no longer needs {run}")
