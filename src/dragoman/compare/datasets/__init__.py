"""Data sets of studies, by name: each function writes or finds files and returns the ``data`` of a run file.

A generated set is a function of its settings alone.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from dragoman.compare.datasets import arrays, grammar, puzzles
from dragoman.compare.datasets.found import given_file, multi30k
from dragoman.compare.datasets.reversed_words import reversed_words
from dragoman.compare.settings import check_settings
from dragoman.config import unknown
from dragoman.errors import ConfigError

DATA_SETS: dict[str, Callable[..., dict[str, Any]]] = {
    "canaries": grammar.canaries,
    "copy": reversed_words,
    "digits": arrays.digits,
    "induction": puzzles.induction,
    "listops": puzzles.listops,
    "multi30k": multi30k,
    "recall": puzzles.recall,
    "selective_copy": puzzles.selective_copy,
    "sentences": grammar.sentences,
    "series": arrays.series,
    "sums": puzzles.sums,
    "topics": grammar.topics,
    "trees": grammar.trees,
}
FILE = "file"
"""Kind of a data set that is a file of the user's own."""


def data_section(asked: Any, folder: Path, run_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``data`` of a run file for a data set: a name, or a mapping with ``kind`` and settings.

    Raises:
        ConfigError: no such data set, or settings that are wrong.
        DataError: its files are not there.
    """
    settings = {"kind": asked} if isinstance(asked, str) else dict(asked) if isinstance(asked, Mapping) else {}
    kind = settings.pop("kind", None)
    if kind == FILE:
        return given_file(str(settings.get("path", "")), run_file)
    if kind not in DATA_SETS:
        raise ConfigError(unknown("data", kind, (*DATA_SETS, FILE)))
    check_settings(settings, DATA_SETS[kind], f"data.{kind}")
    key = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return DATA_SETS[kind](folder / (f"{kind}-{key}" if settings else kind), **settings)


def names_data_set(value: Any) -> bool:
    """Return whether a value of ``data`` is a data set of studies rather than the ``data`` of a run file."""
    kind = value.get("kind") if isinstance(value, Mapping) else value
    return kind == FILE or kind in DATA_SETS
