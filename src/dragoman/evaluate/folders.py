"""Where the results of an evaluation lie: a folder of its own for each test set."""

import hashlib
import json
from pathlib import Path

OWN = "the run's own test set"


def corpus_id(named: str | None) -> str:
    """Return what tells a test set from others of the same name: its absolute paths."""
    return OWN if named is None else ",".join(str(Path(part).resolve()) for part in named.split(","))


def folder_for(run: Path, named: str | None, name: str | None = None) -> Path:
    """Return the folder under ``run`` for the test set that is ``named``, or the ``name`` that a person chose for it.

    A folder that holds the results of another test set is not taken: part of a hash then tells the two apart.
    """
    folder = run / "evaluations"
    if name is not None:
        return folder / name
    stem = name_of_file(named, "test")
    there, wanted = _test_set_in(folder / stem), corpus_id(named)
    if there in (None, wanted):
        return folder / stem
    return folder / f"{stem}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"


def name_of_file(named: str | None, default: str) -> str:
    """Return the first part of a file's name; never an empty one, which would stand for the folder above."""
    return Path((named or "").split(",")[0]).name.strip(".").partition(".")[0] or default


def _test_set_in(folder: Path) -> str | None:
    """Return whose results are there; None where there are none."""
    if not folder.exists():
        return None
    try:
        return json.loads((folder / "scores.json").read_text(encoding="utf-8")).get("test_set", _before(folder))
    except (OSError, ValueError, AttributeError):
        return _before(folder)


def _before(folder: Path) -> str:
    """Return the likely owner of results that say nothing: those of earlier versions."""
    return OWN if folder.name == "test" else ""
