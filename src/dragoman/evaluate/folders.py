"""Folders for the results of evaluations, one for each test set."""

import glob
import hashlib
import json
import re
from pathlib import Path

from dragoman.errors import ConfigError

OWN = "the run's own test set"


def corpus_id(named: str | None) -> str:
    """Return an identifier of a test set, its absolute paths, which tell it from others of the same name."""
    return OWN if named is None else ",".join(str(Path(part).resolve()) for part in named.split(","))


def folder_for(run: Path, named: str | None, name: str | None = None, *, votes: bool = False) -> Path:
    """Return the folder under ``run`` for the test set ``named``, or the folder ``name`` that the user chose.

    A folder with results of another test set is not reused: a part of a hash then tells the two apart. Results with the
    votes of a datastore have a folder of their own.

    Raises:
        ConfigError: ``name`` is not the name of one folder.
    """
    folder = run / "evaluations"
    if name is not None:
        return folder / check_folder_name(name)
    stem = name_of_file(named, "test") + ("-knn" if votes else "")
    found, wanted = _test_set_in(folder / stem), corpus_id(named)
    if found in (None, wanted):
        return folder / stem
    return folder / f"{stem}-{_short_hash(wanted)}"


def journal_name(run: Path, named: str | None, name: str | None = None) -> str:
    """Return the name of the journal under ``run`` that ``--follow`` writes for a test set; see ``folder_for``.

    Raises:
        ConfigError: ``name`` is not the name of one file.
    """
    if name is not None:
        return check_folder_name(name)
    stem, wanted = name_of_file(named, "valid"), corpus_id(named)
    there = _test_set_of_lines(run / "evaluations" / f"{stem}.jsonl")
    return stem if there in (None, wanted) else f"{stem}-{_short_hash(wanted)}"


def check_folder_name(name: str, argument: str = "name") -> str:
    """Return ``name``, if it can name a folder within another.

    Raises:
        ConfigError: it leads elsewhere, or no file system takes it.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise ConfigError(f"{argument}: must be the name of one folder, without a path, got {name!r}")
    return name


def name_of_file(named: str | None, default: str) -> str:
    """Return the first part of a file's name, or what a pattern names; never an empty one, which would stand for the
    folder above."""
    first = Path((named or "").split(",")[0])
    if not glob.has_magic(str(first)):
        return _stem(first.name) or default
    parts = (_MAGIC.sub("", _stem(part)).strip("-_ ") for part in reversed(first.parts))
    return next(filter(None, parts), default)


def _stem(name: str) -> str:
    return name.strip("./").partition(".")[0]


_MAGIC = re.compile(r"\[[^]]*\]|[*?\[\]]")


def _short_hash(wanted: str) -> str:
    return hashlib.sha256(wanted.encode()).hexdigest()[:8]


def _test_set_in(folder: Path) -> str | None:
    """Return the test set whose results are in a folder; None where there are none."""
    if not folder.exists():
        return None
    try:
        return json.loads((folder / "scores.json").read_text(encoding="utf-8")).get(
            "test_set", _own_or_unknown(folder.name, "test")
        )
    except (OSError, ValueError, AttributeError):
        return _own_or_unknown(folder.name, "test")


def _own_or_unknown(name: str, own: str) -> str:
    """Return the likely owner of results that do not name their test set: those of earlier versions."""
    return OWN if name == own else ""


def _test_set_of_lines(journal: Path) -> str | None:
    """Return whose results a journal holds; None where it holds none."""
    try:
        with journal.open(encoding="utf-8") as lines:
            first = next(lines, None)
        return None if first is None else json.loads(first).get("test_set") or _own_or_unknown(journal.stem, "valid")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        return _own_or_unknown(journal.stem, "valid")
