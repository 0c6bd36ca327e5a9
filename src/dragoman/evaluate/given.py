"""The pairs that a translator is examined with: a file that a person names, or what the run has held out."""

from collections.abc import Sequence
from pathlib import Path

from dragoman.checkpoint import run_config, run_folder
from dragoman.text.context import context_of_run
from dragoman.text.formats.pairs import ColumnNames
from dragoman.text.held_out import read_held_out, tagged_pairs
from dragoman.text.lines import Sourced


def pairs_for(
    run: str | Path,
    named: str | None,
    tags: Sequence[str] = (),
    *,
    kept: str = "test",
    columns: ColumnNames | None = None,
) -> list[Sourced]:
    """The pairs of a file, with the context that the run reads before a source, and with these tags; without a file
    those that the run has ``kept`` under this name. Pairs that the run has held out bring both along; tags that are
    given take the place of theirs. ``columns`` are as in ``guess_source``.

    Raises:
        CheckpointError: no such run.
        ConfigError, DataError: as ``read_pairs``.
    """
    context, own = context_of_run(run_config(run)), run_folder(run) / "data"
    path = own / f"{kept}.jsonl" if named is None else Path(named)
    if path.resolve().parent != own.resolve():
        return tagged_pairs(str(named), tags, context, columns)
    held_out = read_held_out(path)
    return [pair._replace(tags=" ".join(tags)) for pair in held_out] if tags else held_out
