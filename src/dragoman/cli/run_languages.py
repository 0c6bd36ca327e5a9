"""Languages of a run, for options that leave them out."""

from contextlib import suppress
from pathlib import Path

from dragoman.errors import UserError


def languages_of_run(run: Path) -> tuple[str | None, str | None]:
    """Return the source and target language of a run, where its cleaning names them."""
    from dragoman.checkpoint import run_config

    with suppress(UserError):  # a run that is missing is reported when it is loaded
        cleaning = (run_config(run).get("data") or {}).get("cleaning") or {}
        return cleaning.get("source_language"), cleaning.get("target_language")
    return None, None
