"""Pairs of texts that a program gives: rows of any kind, checked one by one, and written where a run can read them.

Rows may be tuples, mappings, or the rows of a data frame (pandas, polars), a table of pyarrow or a data set of Hugging
Face; none of these libraries is imported here.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from dragoman.errors import DataError
from dragoman.text.formats.columns import Pairing, in_order, text_columns
from dragoman.text.lines import Pair, check_string

Columns = tuple[str, str]
"""Names of the columns of source and target."""
_SOURCE_AND_TARGET: Columns = ("source", "target")
_BATCH = 1000


def is_paths(given: Any) -> bool:
    """Return whether files are named: a path, or several."""
    if isinstance(given, str | Path):
        return True
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(one, str | Path) for one in given)


def pair_rows(given: Any, argument: str, columns: Columns | None = None) -> Iterator[Pair]:
    """Yield the pairs of ``given``.

    Args:
        given: an iterable of pairs (tuples, lists, or mappings of columns), a mapping of two columns to lists, or a
            table of another library.
        argument: its name, for messages.
        columns: which columns hold source and target; by default as their names tell.

    Raises:
        TypeError: no rows at all.
        DataError: a row that is no pair of texts, named by its number from 1; columns that are not there; or no row.
    """
    rows, where = _rows(given, argument, columns), 0
    for where, row in enumerate(rows, 1):
        if isinstance(row, Mapping) and columns is None:  # the first row tells for all
            columns = _names_in(row, f"{argument}: row {where}")
        source, target = _sides(row, columns, f"{argument}: row {where}")
        yield Pair(source, target)
    if not where:
        ended = " (an iterator gives its rows only once)" if isinstance(given, Iterator) else ""
        raise DataError(f"{argument}: there are no rows{ended}: give at least a few hundred pairs")


def write_rows(given: Any, argument: str, path: Path, columns: Columns | None = None) -> int:
    """Write pairs as JSON lines with the keys source and target; return how many there are.

    Raises:
        TypeError, DataError: as ``pair_rows``.
    """
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for pair in pair_rows(given, argument, columns):
            file.write(json.dumps(pair._asdict(), ensure_ascii=False) + "\n")
            count += 1
    return count


# ---- rows -----------------------------------------------------------------------------------------------


def _rows(given: Any, argument: str, columns: Columns | None) -> Iterable[Any]:
    if (names := column_names(given, argument)) is not None:
        return table_rows(given, _chosen(names, columns, argument), argument)
    if isinstance(given, str | bytes | Set) or not isinstance(given, Iterable):
        what = "a set has no order" if isinstance(given, Set) else f"got {described(given)}"
        raise TypeError(
            f"{argument}: an iterable of pairs such as (source, target), a data frame or paths are expected: {what}"
        )
    return given


def _sides(row: Any, columns: Columns | None, where: str) -> tuple[str, str]:
    """Return both texts of a row.

    Raises:
        DataError: it is no pair of texts.
    """
    if isinstance(row, Mapping):
        inner = row.get("translation")
        row = inner if isinstance(inner, Mapping) else row
        if missing := [name for name in columns or () if name not in row]:
            raise DataError(f"{where}: no {missing[0]!r} among {', '.join(map(repr, row)) or 'nothing'}")
        row = [row[name] for name in columns or ()]
    elif isinstance(row, str | bytes) or not isinstance(row, Sequence):
        raise DataError(f"{where}: a pair (source, target) is expected, and this is {described(row)}")
    if len(row) != 2:
        raise DataError(f"{where}: a pair (source, target) is expected, and this has {len(row)} entries")
    source, target = (text_of(side, f"{where}: the {name}") for side, name in zip(row, _SOURCE_AND_TARGET, strict=True))
    return source, target


def _names_in(row: Mapping[Any, Any], where: str) -> Columns:
    if isinstance(row.get("translation"), Mapping):
        raise DataError(f"{where}: name the languages: columns=({', '.join(map(repr, row['translation']))})")
    return _told_by_names(list(row), where)


def _told_by_names(names: list[Any], where: str) -> Columns:
    """Return the columns of source and target.

    Raises:
        DataError: their names do not tell.
    """
    texts = list(map(str, names))
    pairing = text_columns(texts) or (in_order(texts, Pairing(0, 1)) if len(names) == 2 else None)
    if pairing is None:
        known = ", ".join(map(repr, names)) or "none"
        raise DataError(f"{where}: name the columns of source and target: columns=(..., ...); there are {known}")
    return names[pairing.first], names[pairing.second]


def text_of(value: Any, where: str) -> str:
    """Return a value that is a text.

    Raises:
        DataError: it is none; the message begins with ``where``.
    """
    if not isinstance(value, str):
        remedy = "leave out rows without a text" if is_missing(value) else "give texts"
        raise DataError(f"{where} is {described(value)}: {remedy}")
    return check_string(value, where)


def is_missing(value: Any) -> bool:
    """Return True for None, NaN and the like of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def described(value: Any) -> str:
    """Return a value and its type, for messages."""
    if value is None:
        return "None"
    shown = repr(value)
    return f"{shown[:40]}{'...' if len(shown) > 40 else ''} ({type(value).__name__})"


# ---- tables of other libraries --------------------------------------------------------------------------


def column_names(given: Any, argument: str) -> list[Any] | None:
    """Return the names of a table's columns; None for what is no table.

    Raises:
        DataError: a dictionary of data sets.
    """
    library = type(given).__module__.partition(".")[0]
    if library == "datasets" and isinstance(given, Mapping):
        raise DataError(f"{argument}: a dictionary of data sets: choose one of {', '.join(map(repr, given))}")
    if library in ("pandas", "polars", "pyarrow", "datasets"):
        if library == "polars" and hasattr(given, "collect_schema"):
            return list(given.collect_schema().names())
        names = getattr(given, "column_names", None) or getattr(given, "columns", None)
        return None if names is None else list(names)
    return list(given) if isinstance(given, Mapping) else None


def _chosen(names: list[Any], columns: Columns | None, argument: str) -> list[Any]:
    """Return the two columns of source and target, or the one that holds both.

    Raises:
        DataError: they are not there, or cannot be told from their names.
    """
    if "translation" in names and (columns is None or not set(columns) <= set(names)):
        return ["translation"]
    if columns is not None:
        if missing := [name for name in columns if name not in names]:
            known = ", ".join(map(repr, names)) or "none"
            raise DataError(f"{argument}: no column {missing[0]!r}: there are {known}")
        return list(columns)
    return list(_told_by_names(names, argument))


def table_rows(given: Any, names: list[Any], argument: str) -> Iterator[Any]:
    """Yield the two texts of each row, or what the only column holds.

    Raises:
        DataError: several columns have one of these names.
    """
    there = column_names(given, argument) or []
    if twice := next((name for name in names if there.count(name) > 1), None):
        raise DataError(f"{argument}: {there.count(twice)} columns are named {twice!r}: give each a name of its own")
    match type(given).__module__.partition(".")[0]:
        case "pandas":
            rows: Iterable[Any] = zip(*(given[name] for name in names), strict=True)
        case "polars":
            frame = given.collect() if hasattr(given, "collect") else given
            rows = frame.select(names).iter_rows()
        case "pyarrow":
            batches = given.select(names).to_batches(_BATCH)
            rows = itertools.chain.from_iterable(
                zip(*(column.to_pylist() for column in batch.columns), strict=True) for batch in batches
            )
        case "datasets":
            rows = (tuple(row[name] for name in names) for row in given)
        case _:
            rows = _columns_of_lists([given[name] for name in names], names, argument)
    return (row[0] for row in rows) if len(names) == 1 else iter(rows)


def _columns_of_lists(columns: list[Any], names: list[Any], argument: str) -> Iterable[Any]:
    for name, column in zip(names, columns, strict=True):
        if isinstance(column, str | bytes) or not isinstance(column, Sequence):
            raise DataError(f"{argument}: column {name!r} must be a list of texts, and is {described(column)}")
    if len({len(column) for column in columns}) > 1:
        lengths = " and ".join(f"{name!r} has {len(column):,}" for name, column in zip(names, columns, strict=True))
        raise DataError(f"{argument}: the columns are of different length: {lengths} rows")
    return zip(*columns, strict=True)
