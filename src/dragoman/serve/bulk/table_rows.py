"""Rows of tables as lines of a bulk job: each is a line of JSON that says what is translated in the row and what stands
around it.

A table is read a row at a time, twice, so that memory does not grow with it. Its output is put together from the rows'
own bytes, as ``text/filled/table_document.py`` does in memory, so that both give the same file.
"""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dragoman.errors import DataError
from dragoman.text.compressed import open_bytes
from dragoman.text.filled.table_layout import TableCell, TableLayout, chosen_columns
from dragoman.text.formats.columns import note_columns, strip_names
from dragoman.text.formats.tables import named_separator
from dragoman.text.lines import check_string

_MARK = "\ufeff"
LONGEST = 200_000
"""Characters of a row above which its quotes are taken for broken."""


class TableRow(NamedTuple):
    """Row of a table."""

    before: str
    """Text before the translation; the whole row if ``wanted`` is False."""
    after: str = ""
    """Text after it."""
    source: str = ""
    notes: tuple[str, ...] = ()
    """Notes of the table on the row: its context, and comments."""
    wanted: bool = False
    """True if it has a source and no translation."""
    quoted: bool = False
    """True if the source is in quotes."""
    separator: str = ","
    """Separator of the table; empty for one that is no text, whose cells are written as JSON."""
    literal: bool = False
    place: str = ""

    @property
    def text(self) -> str:
        """Return the source, for the context of others."""
        return self.source

    def spelled(self) -> str:
        """Return the row as a line."""
        return json.dumps(self, ensure_ascii=False)

    @classmethod
    def read(cls, line: str) -> "TableRow":
        """Return the row that a line spells."""
        row = cls(*json.loads(line))
        return row._replace(notes=tuple(row.notes))

    def written(self, translation: str | None) -> str:
        """Return the row with a translation; None for none."""
        if not self.wanted:
            return self.before
        if not self.separator:
            return self.before + json.dumps(translation, ensure_ascii=False) + self.after
        text = TableLayout(self.separator, self.literal).written(translation, quoted=self.quoted) if translation else ""
        return self.before + text + self.after


def read_table_rows(path: str, source: str | None, target: str | None) -> Iterator[str]:
    """Yield the rows of a .csv or .tsv file as lines, its header among them.

    Args:
        source, target: names of columns; None where common names tell.

    Raises:
        DataError: it cannot be read, is not UTF-8, has unclear columns, a row of another length, or a quote that does
            not close; the message names the line.
    """
    reader: _RowReader | None = None
    row, begin, number = "", 1, 0
    with open_bytes(path) as file:
        for number, raw in enumerate(file, 1):
            line = _decoded(raw, path, number)
            if reader is None:
                first = line.removeprefix(_MARK)
                reader = _RowReader(path, TableLayout.of(path, first), source, target)
                if named_separator(path, first):
                    yield TableRow(line).spelled()
                    begin = number + 1
                    continue
            inside = bool(row) and '"' not in line  # of a quoted field
            row += line
            if inside:
                continue
            if (cells := reader.cells(begin, row, complete=len(row) > LONGEST)) is not None:
                yield reader.row(begin, row, cells).spelled()
                row, begin = "", number + 1
    if row and reader is not None:
        reader.cells(begin, row, complete=True)
        raise DataError(f"{path}:{begin}: a quote that opens in this row does not close: check its quotes")
    if reader is None or reader.header is None:
        raise DataError(f"{path}: is empty: its first row must name the columns")


def _decoded(raw: bytes, path: str, number: int) -> str:
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        raise DataError(f"{path}:{number}: not UTF-8: convert the file") from None
    if "\0" in line:
        raise DataError(f"{path}:{number}: holds a NUL, which is not text: remove it")
    return line


class _RowReader:
    """Reader of the rows of one table."""

    def __init__(self, path: str, layout: TableLayout, source: str | None, target: str | None):
        self.path, self.layout, self.names = path, layout, (source, target)
        self.header: list[str] | None = None
        self.source, self.target = 0, 0
        self.added = False
        self.noted: list[int] = []

    def cells(self, line: int, text: str, *, complete: bool) -> list[TableCell] | None:
        """Return the cells of a row; None if it goes on in the next line.

        Args:
            complete: nothing follows.

        Raises:
            DataError: ``complete``, and a quote does not open a field or does not close.
        """
        bare = text.removeprefix(_MARK)
        try:
            found = self.layout.rows(bare, lambda at: f"{self.path}:{line + bare.count(chr(10), 0, at)}")
        except DataError:
            if complete:
                raise
            return None
        if len(found) != 1:
            raise DataError(
                f"{self.path}:{line}: holds a carriage return, alone, which does not end a line: convert the file"
            )
        return found[0]

    def row(self, line: int, text: str, cells: Sequence[TableCell]) -> TableRow:
        """Return a row."""
        place = f"{self.path}:{line}"
        mark = _MARK if text.startswith(_MARK) else ""
        text = text.removeprefix(_MARK)
        if len(cells) == 1 and not cells[0].text:
            return TableRow(mark + text)
        if self.header is None:
            return self.head(mark, text, cells)
        if len(cells) != len(self.header):
            raise DataError(f"{place}: {len(self.header)} columns expected, {len(cells)} found")
        return self.body(text, cells, place)

    def head(self, mark: str, text: str, cells: Sequence[TableCell]) -> TableRow:
        """Read the header, and return it, with the column that is added."""
        self.header = strip_names([cell.text for cell in cells])
        self.source, target = chosen_columns(self.header, *self.names, f"{self.path}:1")
        self.added, self.target = target is None, len(cells) - 1 if target is None else target
        self.noted = [column for column in note_columns(self.header) if column not in (self.source, target)]
        end = cells[-1].end
        new = self.layout.separator + (self.names[1] or "") if self.added else ""
        return TableRow(mark + text[:end] + new + text[end:])

    def body(self, text: str, cells: Sequence[TableCell], place: str) -> TableRow:
        """Return a row below the header."""
        cell, origin = cells[self.target], cells[self.source]
        source = check_string(origin.text, place)
        start = cell.end if self.added else cell.start
        before, after = text[:start] + self.layout.separator * self.added, text[cell.end :]
        if not source.strip() or (not self.added and cell.text.strip()):
            return TableRow(before + text[start : cell.end] + after, source=source)
        return TableRow(
            before,
            after,
            source,
            tuple(note for column in self.noted if (note := cells[column].text.strip())),
            wanted=True,
            quoted=text[origin.start : origin.start + 1] == '"',
            separator=self.layout.separator,
            literal=self.layout.literal,
            place=place,
        )
