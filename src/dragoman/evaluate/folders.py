"""Folders for the results of evaluations, one for each test set."""

import hashlib
import json
from pathlib import Path

OWN = "the run's own test set"


def corpus_id(named: str | None) -> str:
    """Return an identifier of a test set, its absolute paths, which tell it from others of the same name."""
    return OWN if named is None else ",".join(str(Path(part).resolve()) for part in named.split(","))


def folder_for(run: Path, named: str | None, name: str | None = None) -> Path:
    """Return the folder under ``run`` for the test set ``named``, or the folder ``name`` that the user chose.

    A folder with results of another test set is not reused: a part of a hash then tells the two apart.
    """
    folder = run / "evaluations"
    if name is not None:
        return folder / name
    stem = name_of_file(named, "test")
    found, wanted = _test_set_in(folder / stem), corpus_id(named)
    if found in (None, wanted):
        return folder / stem
    return folder / f"{stem}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"


def name_of_file(named: str | None, default: str) -> str:
    """Return the first part of a file's name; never an empty one, which would mean the parent folder."""
    return Path((named or "").split(",")[0]).name.strip(".").partition(".")[0] or default


def _test_set_in(folder: Path) -> str | None:
    """Return the test set whose results are in a folder; None where there are none."""
    if not folder.exists():
        return None
    try:
        return json.loads((folder / "scores.json").read_text(encoding="utf-8")).get("test_set", _before(folder))
    except (OSError, ValueError, AttributeError):
        return _before(folder)


def _before(folder: Path) -> str:
    """Return the likely test set of results that do not name it: those of earlier versions."""
    return OWN if folder.name == "test" else ""
