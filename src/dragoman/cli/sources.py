"""Where a command's pairs come from: a file known by its name, or sources written out as in run files."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.text.formats.formats import PairSource
    from dragoman.text.formats.lines import Pair

HELP = (
    "A .tsv, .csv, .jsonl, .parquet, .po, .mo, .xlf or .tmx file, plain, .gz or .zst; SOURCE,TARGET for two text "
    "files; a run file, for its training text; or a source as in run files: {kind: tmx, path: m.tmx, source: en, ...}."
)
OFTEN = 1000
"""Pairs between two reports of progress."""


def pairs_of(text: str) -> "Iterator[Pair]":
    """Every pair of what ``text`` names, one source after the other.

    Raises:
        ConfigError: a source that is unknown, or said in a way that is.
        DataError: while reading: what is wrong, and where.
    """
    from itertools import chain

    from dragoman.text.formats.formats import read_pairs

    return chain.from_iterable(map(read_pairs, named_sources(text)))


def named_sources(text: str) -> "list[PairSource]":
    from pathlib import Path

    from dragoman.config import load_yaml
    from dragoman.text.formats.formats import guess_source

    if text.lstrip().startswith(("{", "[")):
        return _written_out(load_yaml(text, where="source"), "source")
    if text.endswith((".yaml", ".yml")):
        plain = load_yaml(Path(text))
        return _written_out(_training_text(plain, text), text)
    return [guess_source(text)]


def _training_text(plain: Any, name: str) -> Any:
    if not isinstance(plain, dict) or "kind" in plain:
        return plain
    data = plain.get("data")
    if not isinstance(data, dict) or not data.get("train"):
        raise ConfigError(f"{name}: neither a source, a list of them, nor a run file with data.train")
    return data["train"]


def _written_out(plain: Any, where: str) -> "list[PairSource]":
    from dragoman.config import from_dict
    from dragoman.text.formats.formats import PairSource, guess_source

    if not isinstance(plain, list):
        plain = [plain]
    if not plain:
        raise ConfigError(f"{where}: an empty list: name a source")
    return [
        guess_source(one) if isinstance(one, str) else from_dict(PairSource, one, where=f"{where}[{i}]")
        for i, one in enumerate(plain)
    ]


def followed(pairs: "Iterator[Pair]", progress: Callable[[int, int], None]) -> "Iterator[Pair]":
    """The same pairs, while ``progress`` is told how many went by."""
    for number, pair in enumerate(pairs, 1):
        if number % OFTEN == 0:
            progress(number, 0)
        yield pair
