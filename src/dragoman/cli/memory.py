"""Reading the translation memory that --memory names."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.cli.run_languages import languages_of_run

if TYPE_CHECKING:
    from dragoman.text.memory import TranslationMemory


def read_memory(
    run: Path, paths: Sequence[str] | None, source: str | None, target: str | None
) -> "TranslationMemory | None":
    """Read the files of a translation memory, in the languages that are given, or in those of the run.

    Raises:
        DataError, ConfigError: a file that cannot be read as pairs.
    """
    from dragoman.text.memory import TranslationMemory

    if not paths:
        return None
    of_run = languages_of_run(run)
    return TranslationMemory.read(paths, source or of_run[0], target or of_run[1])
