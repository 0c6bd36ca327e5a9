"""Pairs to evaluate a translator on: a file that the user names, or the run's own held-out pairs."""

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
    """Return the pairs of a file, with the context that the run reads before a source, and with these tags.

    Without a file, return the pairs that the run stores under the name ``kept``. Held-out pairs have their own context
    and tags; ``tags``, where given, replace theirs. ``columns`` are as in ``guess_source``.

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
