"""Pairs to evaluate a translator on: a file that the user names, or the run's own held-out pairs."""

from collections.abc import Sequence
from pathlib import Path

from dragoman.checkpoint import run_config, run_folder
from dragoman.text.context import context_of_run
from dragoman.text.formats.pairs import ColumnNames
from dragoman.text.formats.several import guess_sources
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
    if named is not None and not is_own(run, named):
        return tagged_pairs(guess_sources(named, columns), tags, context_of_run(run_config(run)))
    held_out = read_held_out(_own(run) / f"{kept}.jsonl" if named is None else Path(named))
    return [pair._replace(tags=" ".join(tags)) for pair in held_out] if tags else held_out


def is_own(run: str | Path, named: str) -> bool:
    """Return whether a file is one of those in which the run keeps what it held out.

    Raises:
        CheckpointError: no such run.
    """
    return Path(named).resolve().parent == _own(run).resolve()


def _own(run: str | Path) -> Path:
    return run_folder(run) / "data"
