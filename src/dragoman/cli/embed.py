"""dragoman embed: a vector for each text."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.lines import given_lines, write_lines
from dragoman.cli.terminal import tracked


def embed(
    run: Annotated[Path, typer.Argument(help="The directory of a run whose model reads texts.")],
    text: Annotated[
        str | None,
        typer.Argument(metavar="[FILE | SENTENCE]", help="A text file or one sentence; default: standard input."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .npy file for an array with a row a text, else JSON lines."),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, last, or the name of a checkpoint.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Turn each line of a file, or a sentence, into a vector: as JSON lines, or as an array in a .npy file."""
    from dragoman.decode.embedder import Embedder
    from dragoman.durable import replace_with

    lines = list(given_lines(text))
    embedder = Embedder.load(run, which=checkpoint, device=device)
    with tracked("reading", len(lines)) as progress:
        vectors = embedder.embed(lines, progress).numpy()
    if output is None or output.suffix != ".npy":
        rows = zip(lines, vectors.tolist(), strict=True)
        write_lines((json.dumps({"text": text, "vector": row}, ensure_ascii=False) for text, row in rows), output)
        return

    def save(partial: Path) -> None:
        import numpy as np

        with partial.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)

    replace_with(output, save)
