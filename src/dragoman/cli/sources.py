"""Pairs for a command: a file by its name, or sources written as in run files."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.text.formats.pairs import PairSource
    from dragoman.text.lines import Pair

FILES = (
    "a .tsv, .csv, .jsonl, .parquet, .po, .mo, .xlf or .tmx file, plain or compressed (.gz, .zst, .bz2, .xz); "
    "SOURCE,TARGET for two text files; a folder of such files; or a pattern in quotes, such as 'locale/**/*.po'"
)
HELP = (
    f"{FILES[:1].upper()}{FILES[1:]}; a run file, for its training text; or a source as in run files: "
    "{kind: tmx, path: m.tmx, source: en, ...}."
)
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="SOURCE,TARGET",
        help="Which columns hold source and target, by name or number (counted from 0); of a .tmx file, languages.",
    ),
]
OFTEN = 1000
"""Number of pairs between two reports of progress."""


def parsed_columns(text: str | None) -> "tuple[str, str] | None":
    """Parse two names separated by a comma, as in --columns.

    Raises:
        ConfigError: another number of names.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise ConfigError(f"--columns {text}: two different columns expected, source and target, as in en,es or 1,2")
    return names[0], names[1]


def guessed_sources(path: str, columns: str | None, *, report: bool = True) -> "list[PairSource]":
    """Return the sources of a path; with ``report``, report on standard error what to know about how it is read."""
    from dragoman.text.formats.several import describe_reading, guess_sources

    languages = parsed_columns(columns)
    found = guess_sources(path, languages)
    for line in describe_reading(path, languages, found) if report else ():
        print(f"dragoman: {line}", file=sys.stderr)
    return found


def read_named_pairs(text: str, columns: str | None = None, *, report: bool = True) -> "Iterator[Pair]":
    """Yield every pair of the sources that ``text`` names; with ``report``, also report how tables are read.

    Raises:
        ConfigError: an unknown source, or unknown settings.
        DataError: while reading; the message names the error and its place.
    """
    from itertools import chain

    from dragoman.text.formats.pairs import read_pairs

    return chain.from_iterable(map(read_pairs, named_sources(text, columns, report=report)))


def named_sources(text: str, columns: str | None = None, *, report: bool = True) -> "list[PairSource]":
    """Return the sources that ``text`` names: files, settings written out, or those of a run file; with ``report``,
    also report how tables are read.

    Raises:
        ConfigError: an unknown source, or unknown settings.
    """
    from pathlib import Path

    from dragoman.config import load_yaml

    if text.lstrip().startswith(("{", "[")):
        return _written_out(load_yaml(text, where="source"), "source")
    if text.endswith((".yaml", ".yml")):
        plain = load_yaml(Path(text))
        return _written_out(_training_text(plain, text), text)
    return guessed_sources(text, columns, report=report)


def _training_text(plain: Any, name: str) -> Any:
    if not isinstance(plain, dict) or "kind" in plain:
        return plain
    data = plain.get("data")
    if not isinstance(data, dict) or not data.get("train"):
        raise ConfigError(f"{name}: neither a source, a list of them, nor a run file with data.train")
    return data["train"]


def _written_out(plain: Any, where: str) -> "list[PairSource]":
    from dragoman.config import from_dict
    from dragoman.text.formats.pairs import PairSource
    from dragoman.text.formats.several import guess_sources

    if not isinstance(plain, list):
        plain = [plain]
    if not plain:
        raise ConfigError(f"{where}: an empty list: name a source")
    written: list[PairSource] = []
    for i, source in enumerate(plain):
        written += (
            guess_sources(source) if isinstance(source, str) else [from_dict(PairSource, source, where=f"{where}[{i}]")]
        )
    return written


def with_progress(pairs: "Iterator[Pair]", progress: Callable[[int, int], None]) -> "Iterator[Pair]":
    """Yield the pairs, and report their number to ``progress``."""
    for number, pair in enumerate(pairs, 1):
        if number % OFTEN == 0:
            progress(number, 0)
        yield pair
