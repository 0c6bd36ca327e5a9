"""dragoman datastore: the decoder states of given translations, for nearest-neighbour translation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, FromOption, RunArgument, ToOption
from dragoman.cli.searching import TagOption
from dragoman.cli.sources import ColumnsOption, named_sources

if TYPE_CHECKING:
    from dragoman.text.lines import Sourced


def datastore(
    run: RunArgument,
    pairs: Annotated[
        list[str],
        typer.Argument(
            metavar="PAIRS", help="Files with pairs (.tmx, .po, .tsv, corpus.en,corpus.de, ...), or folders of them."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the datastore; an earlier one is replaced."),
    ],
    columns: ColumnsOption = None,
    tag: TagOption = None,
    source_language: FromOption = None,
    target_language: ToOption = None,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    index: Annotated[
        bool, typer.Option("--index", help="Also write an index for approximate search, of many millions of tokens.")
    ] = False,
) -> None:
    """Store the decoder states of given translations, for `dragoman translate --knn FOLDER`: a translator that has not
    been trained on them then follows them (kNN-MT)."""
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.knn import build_datastore

    given = [pair for text in pairs for pair in _read(run, text, columns, tag or [])]
    with progress_bar("reading", len(given)) as progress:
        states = build_datastore(
            run,
            given,
            output,
            checkpoint,
            device=device,
            index=index,
            source_language=source_language,
            target_language=target_language,
            progress=progress,
        )
    searched = ", with an index for approximate search" if index else ""
    print(f"{output}: {states:,} states of {len(given):,} pairs{searched}")


def _read(run: Path, text: str, columns: str | None, tags: list[str]) -> "list[Sourced]":
    """Return the pairs that ``text`` names, with the tags and the context that the run reads before a source."""
    from dragoman.checkpoint import run_config
    from dragoman.evaluate.given import is_own, pairs_for
    from dragoman.text.context import context_of_run
    from dragoman.text.held_out import tagged_pairs

    if is_own(run, text):
        return pairs_for(run, text, tags)
    return tagged_pairs(named_sources(text, columns), tags, context_of_run(run_config(run)))
