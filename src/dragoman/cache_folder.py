"""Folder of this user for files that can be made or fetched again: compiled kernels, measured choices, wheels."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$DRAGOMAN_CACHE``, or ``dragoman`` below ``$XDG_CACHE_HOME``, or ``~/.cache/dragoman``."""
    if chosen := os.environ.get("DRAGOMAN_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dragoman"
