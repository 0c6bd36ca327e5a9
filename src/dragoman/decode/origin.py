"""Small files of the folder that a run was imported from, which the run keeps as they were."""

import json
from pathlib import Path
from typing import Any

from dragoman.checkpoint import run_folder
from dragoman.errors import CheckpointError

FOLDER = "origin"


def origin_folder(run: str | Path) -> Path:
    """Return the folder of a run, or of one of its checkpoints, that holds these files; it need not exist."""
    return run_folder(run) / FOLDER


def read_settings(path: Path) -> dict[str, Any]:
    """Return the mapping of a JSON file; empty if there is no such file.

    Raises:
        CheckpointError: not JSON, or no mapping.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON mapping")
    return content
