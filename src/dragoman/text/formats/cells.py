"""Reading one column of a table, of JSON lines or of Parquet as lines of text."""

import re
from collections.abc import Iterator
from typing import Any

from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension
from dragoman.text.formats.columns import is_header, strip_names
from dragoman.text.formats.kinds import TABLES
from dragoman.text.formats.tables import table_rows
from dragoman.text.lines import check_string, parse_json, read_lines


def read_column(path: str, column: str) -> Iterator[str]:
    """Yield the texts of a column in the order of rows. Line ends inside a cell become spaces, since a text is one
    line.

    Args:
        column: name of a column, or in a table its index from 0; in JSON lines a key, and in Parquet a column, where a
            dot leads into an object.

    Raises:
        DataError: no such column, or a row that cannot be read; the message names file and row.
        ConfigError: a file without columns.
    """
    match extension(path):
        case ".csv" | ".tsv":
            cells = _of_table(path, column)
        case ".jsonl" | ".ndjson":
            cells = _of_json_lines(path, column)
        case ".parquet":
            cells = _of_parquet(path, column)
        case _:
            raise ConfigError(f"{path}: has no columns: --column is for {', '.join(TABLES)} files")
    for cell in cells:
        yield re.sub(r"[\r\n]+", " ", cell.strip("\r\n"))


def _of_table(path: str, column: str) -> Iterator[str]:
    rows = table_rows(path)
    if (first := next(rows, None)) is None:
        return
    line, fields = first
    names = strip_names(fields)
    if names.count(column) > 1:
        raise DataError(f"{path}:{line}: {names.count(column)} columns are named {column!r}: give a number, from 0")
    if column in names:
        number = names.index(column)
    elif column.isdecimal() and int(column) < len(fields):
        number = int(column)
        if not is_header(fields):
            yield fields[number]
    else:
        shown = ", ".join(names[:9]) + (", ..." if len(names) > 9 else "")
        raise DataError(f"{path}:{line}: no column {column!r}: there are 0 to {len(fields) - 1}, or by name {shown}")
    for _, fields in rows:
        yield fields[number]


def _of_json_lines(path: str, column: str) -> Iterator[str]:
    for number, line in enumerate(read_lines(path), 1):
        if line and not line.isspace():
            where = f"{path}:{number}"
            found: Any = parse_json(line, where)
            for key in [column] if isinstance(found, dict) and column in found else column.split("."):
                if not isinstance(found, dict) or key not in found:
                    raise DataError(f"{where}: no key {column!r}{_among(found)}")
                found = found[key]
            if not isinstance(found, str):
                raise DataError(f"{where}: {column!r} is not a string but {type(found).__name__}")
            yield check_string(found, f"{where}: {column!r}")


def _among(record: Any) -> str:
    return f" among {', '.join(map(repr, record)) or 'none'}" if isinstance(record, dict) else ": not an object"


def _of_parquet(path: str, column: str) -> Iterator[str]:
    from dragoman.text.formats.parquet import Parquet, read_parquet

    for pair in read_parquet(Parquet(path=path, source=column, target=column)):
        if pair is not None:
            yield pair.source
