"""Tables read strictly: every row has as many fields as the first, and a quote opens a field or is refused.

A ``.tsv`` file is taken literally: a tab separates fields, and quotes are text. A ``.csv`` file has quotes as in RFC
4180, and commas, semicolons or tabs between its fields, whichever its first rows agree on; or what its first line
names, as Excel has it (``sep=;``).
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension
from dragoman.text.lines import read_lines

SEPARATORS = (",", ";", "\t")
"""Separators of a .csv file, the likeliest first."""
HEAD = 100
"""Number of lines that the separator of a .csv file is found by."""

TableRow = tuple[int, Sequence[str]]
"""Line number on which the row begins, from 1, and its fields."""


def named_separator(path: str, first_line: str) -> str | None:
    """Return the separator that the first line of a .csv file names, which is then no row; None where it names none."""
    found = _NAMED.fullmatch(first_line.rstrip("\r\n")) if extension(path) == ".csv" else None
    return found and found[1]


_NAMED = re.compile(r'"?sep=([^"\r\n])"?', re.IGNORECASE)


def table_rows(path: str) -> Iterator[TableRow]:
    """Yield the rows of a table without empty lines.

    Raises:
        DataError: as ``split_rows``.
        ConfigError: a file without a table's extension.
    """
    return filter(is_not_empty, split_rows(path))


def is_not_empty(row: TableRow) -> bool:
    """Return True for a row that is not an empty line."""
    return len(row[1]) > 1 or any(row[1])


def split_rows(path: str) -> Iterator[TableRow]:
    """Yield the rows of a table, empty lines included.

    Raises:
        DataError: a row with more or fewer fields than the first, or with a quote that does not open a field; the
            message names file and line.
        ConfigError: a file without a table's extension.
    """
    if (split := SPLITTERS.get(extension(path))) is None:
        raise ConfigError(f"{path}: a table's name ends in {' or '.join(SPLITTERS)}, or that and .gz or .zst")
    return _check_widths(split(path), path)


def first_row(rows: Iterator[TableRow]) -> tuple[int, Sequence[str]]:
    """Return the number of empty lines before the first row, and its fields: none where there is no row."""
    for passed, row in enumerate(rows):
        if is_not_empty(row):
            return passed, row[1]
    return 0, ()


def _check_widths(rows: Iterable[TableRow], path: str) -> Iterator[TableRow]:
    first: TableRow | None = None
    for row in rows:
        if is_not_empty(row):
            first = first or row
            if len(row[1]) != len(first[1]):
                raise DataError(
                    f"{path}:{row[0]}: {_columns(len(first[1]))} expected, {len(row[1])} found; line {first[0]} has "
                    f"{len(first[1])}{_advice(path, len(row[1]) > len(first[1]))}"
                )
        yield row


def _columns(count: int) -> str:
    return f"{count} column" if count == 1 else f"{count} columns"


def _advice(path: str, more: bool) -> str:
    if extension(path) == ".tsv":
        return ", and a tab separates columns: remove it from the text" if more else " (a tab separates columns)"
    return ': put a field that holds a separator in quotes, as in "Hello, friend"' if more else ""


def _tab_rows(path: str) -> Iterator[TableRow]:
    for number, line in enumerate(read_lines(path), 1):
        yield number, line.split("\t")


def _quoted_rows(path: str) -> Iterator[TableRow]:
    lines = (line + "\n" for line in read_lines(path))
    head, passed = list(islice(lines, HEAD)), 0
    if separator := named_separator(path, "".join(head[:1])):
        head, passed = head[1:], 1
    separator = separator or _separator(head)
    row_lines: list[str] = []
    reader = csv.reader(_recording(chain(head, lines), row_lines), strict=True, delimiter=separator)
    begin = 1 + passed
    try:
        for fields in reader:
            _check_quotes(fields, row_lines, separator)
            yield begin, fields
            begin = reader.line_num + 1 + passed  # a quoted field may span several lines
            row_lines.clear()
    except csv.Error as error:
        raise DataError(f"{path}:{begin}: the row that begins here is not CSV: {error}; check its quotes") from None


def _recording(lines: Iterable[str], row_lines: list[str]) -> Iterator[str]:
    """Yield the lines, and collect in ``row_lines`` those of the row that is being read."""
    for line in lines:
        row_lines.append(line)
        yield line


def _check_quotes(fields: Sequence[str], lines: Sequence[str], separator: str) -> None:
    """Refuse white space before an opening quote, which the csv module reads as text.

    Raises:
        csv.Error: there is some.
    """
    if not any(field[:1].isspace() and field.lstrip().startswith('"') for field in fields):
        return
    # Inside quotes such a field is text. Skipping initial spaces changes only fields outside of quotes.
    spaced = [re.sub(rf"[^\S\n{re.escape(separator)}]", " ", line) for line in lines]
    with_spaces, without = (
        list(csv.reader(spaced, delimiter=separator, skipinitialspace=skip)) for skip in (False, True)
    )
    if with_spaces != without:
        raise csv.Error(f"there is a space between {separator!r} and the quote that opens a field: remove it")


def _separator(head: Sequence[str]) -> str:
    widths = {separator: _widths(head, separator) for separator in SEPARATORS}
    even = (separator for separator, found in widths.items() if len(set(found)) == 1 and found[0] > 1)
    return next(even, max(SEPARATORS, key=lambda separator: max(widths[separator][:1], default=0)))


def _widths(head: Sequence[str], separator: str) -> list[int]:
    try:
        rows = list(csv.reader(head, delimiter=separator))
    except csv.Error:
        return []
    found = [len(fields) for fields in rows if is_not_empty((0, fields))]
    return found[:-1] if len(head) == HEAD else found  # the last row may be incomplete


SPLITTERS = {".tsv": _tab_rows, ".csv": _quoted_rows}
