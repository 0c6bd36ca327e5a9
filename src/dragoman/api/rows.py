"""Pairs of texts that a program gives: rows of any kind, checked one by one, and written where a run can read them.

Rows may be tuples, mappings, or the rows of a data frame (pandas, polars), a table of pyarrow or a data set of Hugging
Face; none of these libraries is imported here.
"""

import itertools
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, SupportsIndex

from dragoman.errors import ConfigError, DataError
from dragoman.text.formats.columns import Pairing, in_order, text_columns
from dragoman.text.lines import Pair, check_string

Columns = Sequence[str | int]
"""Columns of the fields of a row: names, or indices from 0 where rows have no names."""
SOURCE_AND_TARGET = ("source", "target")
_PAIR = "a pair (source, target)"
_BATCH = 1000


def is_paths(given: Any) -> bool:
    """Return whether files are named: a path, or several."""
    if isinstance(given, str | Path):
        return True
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(one, str | Path) for one in given)


def pair_rows(given: Any, argument: str, columns: Columns | None = None) -> Iterator[Pair]:
    """Yield the pairs of ``given``.

    Args:
        given: an iterable of pairs (tuples, lists, named tuples, or mappings of columns), a mapping of two columns to
            lists, or a table of another library.
        argument: its name, for messages.
        columns: which columns hold source and target; by default as their names tell.

    Raises:
        TypeError: no rows at all.
        ConfigError: ``columns`` that are not two.
        DataError: a row that is no pair of texts, named by its number from 1; columns that are not there; or no row.
    """
    number = 0
    for number, row in enumerate(_rows(given, argument, check_columns(columns, SOURCE_AND_TARGET)), 1):
        source, target = (
            text_of(side, f"{argument}: row {number}: the {name}")
            for side, name in zip(row, SOURCE_AND_TARGET, strict=True)
        )
        yield Pair(source, target)
    if not number:
        ended = " (an iterator gives its rows only once)" if isinstance(given, Iterator) else ""
        raise DataError(f"{argument}: there are no rows{ended}: give at least a few hundred pairs")


def write_rows(given: Any, argument: str, path: Path, columns: Columns | None = None) -> int:
    """Write pairs as JSON lines with the keys source and target; return how many there are.

    Raises:
        TypeError, ConfigError, DataError: as ``pair_rows``.
    """
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for pair in pair_rows(given, argument, columns):
            file.write(json.dumps(pair._asdict(), ensure_ascii=False) + "\n")
            count += 1
    return count


# ---- rows -----------------------------------------------------------------------------------------------


def check_columns(columns: Any, fields: Sequence[str]) -> Columns | None:
    """Return the columns, one for each field; None for none.

    Raises:
        ConfigError: they are no list, not as many as the fields, or one is there twice.
    """
    is_list = isinstance(columns, Sequence) and not isinstance(columns, str | bytes)
    if columns is None or (is_list and len(columns) == len(fields) and (len(fields) == 1 or columns[0] != columns[1])):
        return columns
    said = "one name" if len(fields) == 1 else "two different names"
    raise ConfigError(f"columns: a list of {said} is expected, {' and '.join(fields)}, got {columns!r}")


def check_file_columns(columns: Any, fields: tuple[str, str]) -> tuple[str, str] | None:
    """Return the two columns of a file as texts, which indices may be as well; None for none.

    Raises:
        ConfigError: they are not two names or indices.
    """
    if (found := check_columns(columns, fields)) is None:
        return None
    for column in found:
        if isinstance(column, bool) or not isinstance(column, str | SupportsIndex):
            raise ConfigError(f"columns: names or indices are expected, got {described(column)}")
    first, second = map(str, found)
    return first, second


def row_values(
    rows: Iterable[Any],
    argument: str,
    columns: Columns | None,
    told: Callable[[list[Any], str], Columns],
    *,
    fields: int,
    shape: str,
) -> Iterator[Sequence[Any]]:
    """Yield the values of each row that is no row of a table, in the order of its fields.

    Rows with names are read by name: mappings, named tuples, and rows of SQLite. Other rows are read in their order, or
    by index where ``columns`` says so.

    Args:
        rows: the rows, with ``argument`` as their name in messages.
        columns: the columns of the fields, one for each; None where nobody named them.
        told: Function from the names in a row, and its place, to the columns that they tell; the first row with names
            tells for all.
        fields: the number of fields; a row of one field may be its value alone.
        shape: the form of a row, for messages.

    Raises:
        DataError: a row that does not fit, or columns that a row does not have.
    """
    names = columns
    for number, given in enumerate(rows, 1):
        row, where = _with_names(given), f"{argument}: row {number}"
        if isinstance(row, Mapping):
            names = told(list(row), where) if names is None else names
            yield [_named(row, name, where) for name in names]
        elif columns is not None:
            yield _at(row, columns, where)
        elif fields == 1:
            yield row if isinstance(row, tuple | list) and len(row) == 1 else (row,)
        elif isinstance(row, str | bytes) or not isinstance(row, Sequence):
            raise DataError(f"{where}: {shape} is expected, and this is {described(row)}")
        elif len(row) != fields:
            raise DataError(f"{where}: {shape} is expected, and this has {len(row)} entries")
        else:
            yield row


def _with_names(row: Any) -> Any:
    """Return a row whose entries have names as a mapping; another row as it is."""
    if isinstance(row, Mapping | str | bytes) or not isinstance(row, Sequence):
        return row
    keys: Any = getattr(row, "keys", None)  # of SQLite
    names: Any = getattr(row, "_fields", None) or (keys() if callable(keys) else ())
    return dict(zip(names, row, strict=True)) if names and len(set(names)) == len(row) else row


def _named(row: Mapping[Any, Any], name: Any, where: str) -> Any:
    if name not in row:
        raise DataError(f"{where}: no {name!r} among {', '.join(map(repr, row)) or 'nothing'}")
    return row[name]


def _at(row: Any, columns: Columns, where: str) -> list[Any]:
    """Return the entries of a row without names.

    Raises:
        DataError: ``columns`` are no indices in it.
    """
    if isinstance(row, str | bytes) or not isinstance(row, Sequence):
        raise DataError(f"{where}: columns are given, and this has none: it is {described(row)}")
    found = list[Any]()
    for column in columns:
        if isinstance(column, bool) or not isinstance(column, SupportsIndex):
            raise DataError(
                f"{where}: no column {column!r}: its entries have no names, so give indices as in columns=(0, 1)"
            )
        if not 0 <= (index := operator.index(column)) < len(row):
            raise DataError(f"{where}: no column {column}: it has {len(row)} entries, counted from 0")
        found.append(row[index])
    return found


def _rows(given: Any, argument: str, columns: Columns | None) -> Iterator[Sequence[Any]]:
    """Yield source and target of each row, of any type."""
    rows = given
    if (names := column_names(given, argument)) is not None:
        chosen = _chosen(names, columns, argument)
        rows = table_rows(given, chosen, argument)
        if len(chosen) == 2:
            yield from rows
            return
    elif isinstance(given, str | bytes | Set) or not isinstance(given, Iterable):
        what = "a set has no order" if isinstance(given, Set) else f"got {described(given)}"
        raise TypeError(
            f"{argument}: an iterable of pairs such as (source, target), a data frame or paths are expected: {what}"
        )
    yield from row_values(
        _translations(rows, argument, columns), argument, columns, _told_by_names, fields=2, shape=_PAIR
    )


def _translations(rows: Iterable[Any], argument: str, columns: Columns | None) -> Iterator[Any]:
    """Yield rows, or what their column ``translation`` holds by language.

    Raises:
        DataError: nobody named the languages.
    """
    for number, given in enumerate(rows, 1):
        row = _with_names(given)
        inner = row.get("translation") if isinstance(row, Mapping) else None
        if not isinstance(inner, Mapping):
            yield row
        elif columns is None:
            known = ", ".join(map(repr, inner))
            raise DataError(f"{argument}: row {number}: name the languages: columns=({known})")
        else:
            yield inner


def _told_by_names(names: list[Any], where: str) -> tuple[Any, Any]:
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
