"""dragoman embed: a vector for each text or image."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from dragoman.cli.lines import input_batches, write_lines
from dragoman.cli.options import (
    AsOption,
    CheckpointOption,
    ColumnOption,
    DeviceOption,
    PrecisionOption,
    RunArgument,
    SpecialTokensOption,
    TextArgument,
    writable_file,
)
from dragoman.cli.terminal import progress_bar
from dragoman.json_files import json_text

if TYPE_CHECKING:
    import numpy as np


def embed(
    run: RunArgument,
    text: TextArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .npy file for an array with one row per text, else JSON lines.",
            callback=writable_file,
        ),
    ] = None,
    column: ColumnOption = None,
    as_kind: AsOption = None,
    tower: Annotated[str, typer.Option(help="first or second, for a run with two towers.")] = "first",
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Turn each line of a file, a sentence, or images into vectors: as JSON lines, or as an array in a .npy file."""
    import numpy as np

    from dragoman.config import unknown
    from dragoman.decode.readers.embedder import Embedder
    from dragoman.errors import ConfigError
    from dragoman.text.compressed import create_file, extension

    if tower not in ("first", "second"):
        raise ConfigError(unknown("--tower", tower, ("first", "second")))
    embedder = Embedder.load(
        run, checkpoint=checkpoint, device=device, special_tokens=special_tokens, tower=tower, precision=precision
    )

    def found() -> "Iterator[tuple[list[str], np.ndarray]]":
        for given, places in input_batches(text, embedder.material, column=column, as_kind=as_kind):
            with progress_bar("reading", len(given)) as progress:
                vectors = embedder.embed(given, progress, places).numpy()
            yield places, vectors

    if output is None or extension(output) != ".npy":
        write_lines(_as_json(found()), output)
        return
    batches = [vectors for _, vectors in found()]
    with create_file(output) as file:
        vectors = np.concatenate(batches) if batches else np.empty((0, 0), np.float32)
        unseekable = SimpleNamespace(write=file.write)  # numpy asks a file for its position, which a pipe lacks
        np.save(cast(BinaryIO, unseekable), vectors, allow_pickle=False)


def _as_json(found: "Iterable[tuple[list[str], np.ndarray]]") -> Iterator[str]:
    for places, vectors in found:
        for text, row in zip(places, vectors.tolist(), strict=True):
            yield json_text({"text": text, "vector": row})
