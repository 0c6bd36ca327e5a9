"""dragoman embed: a vector for each text or image."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.lines import given_inputs, write_lines
from dragoman.cli.options import CheckpointOption, DeviceOption, RunArgument, SpecialTokensOption, TextArgument
from dragoman.cli.terminal import tracked


def embed(
    run: RunArgument,
    text: TextArgument = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .npy file for an array with a row a text, else JSON lines."),
    ] = None,
    tower: Annotated[str, typer.Option(help="first or second, of a run that has two.")] = "first",
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Turn each line of a file, a sentence, or images into vectors: as JSON lines, or as an array in a .npy file."""
    from dragoman.config import unknown
    from dragoman.decode.readers.embedder import Embedder
    from dragoman.durable import replace_with
    from dragoman.errors import ConfigError

    if tower not in ("first", "second"):
        raise ConfigError(unknown("--tower", tower, ("first", "second")))
    embedder = Embedder.load(run, which=checkpoint, device=device, special_tokens=special_tokens, tower=tower)
    given, places = given_inputs(text, embedder.material)
    with tracked("reading", len(given)) as progress:
        vectors = embedder.embed(given, progress, places).numpy()
    if output is None or output.suffix != ".npy":
        rows = zip(places, vectors.tolist(), strict=True)
        write_lines((json.dumps({"text": text, "vector": row}, ensure_ascii=False) for text, row in rows), output)
        return

    def save(partial: Path) -> None:
        import numpy as np

        with partial.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)

    replace_with(output, save)
