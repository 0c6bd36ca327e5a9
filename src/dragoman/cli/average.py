"""dragoman average: one checkpoint averaged from several."""

from contextlib import closing
from typing import Annotated

import typer

from dragoman.cli.options import OwnRunArgument


def average(
    run: OwnRunArgument,
    last: Annotated[int, typer.Option(min=1, help="Number of checkpoints, counted from the newest.")] = 5,
) -> None:
    """Average the weights of a run's last checkpoints, which often translate better than any one of them."""
    from dragoman.checkpoint import RunDirectory
    from dragoman.train.average import average_checkpoints

    with closing(RunDirectory.open(run, write=True)) as directory:
        averaged = average_checkpoints(directory, last)
    print(f"{averaged.path}\nevery command opens it with --checkpoint {averaged.path.name}")
