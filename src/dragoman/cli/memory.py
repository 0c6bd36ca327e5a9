"""Reading the translation memory that --memory names."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.errors import UserError

if TYPE_CHECKING:
    from dragoman.text.memory import TranslationMemory


def read_memory(
    run: Path, paths: Sequence[str] | None, source: str | None, target: str | None
) -> "TranslationMemory | None":
    """Read the files of a translation memory, in the languages that are given, or in those of the run.

    Raises:
        DataError, ConfigError: a file that cannot be read as pairs.
    """
    from dragoman.checkpoint import run_config
    from dragoman.text.memory import TranslationMemory

    if not paths:
        return None
    cleaning: dict[str, str] = {}
    with suppress(UserError):  # a run that is missing is reported when it is loaded
        cleaning = (run_config(run).get("data") or {}).get("cleaning") or {}
    languages = (source or cleaning.get("source_language"), target or cleaning.get("target_language"))
    return TranslationMemory.read(paths, *languages)
