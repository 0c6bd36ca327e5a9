"""Small files of the folder that a run was imported from, which the run keeps as they were."""

from pathlib import Path

from dragoman.checkpoint import run_folder

FOLDER = "origin"


def origin_folder(run: str | Path) -> Path:
    """Return the folder of a run, or of one of its checkpoints, that holds these files; it need not exist."""
    return run_folder(run) / FOLDER
