"""Tables (``.csv``, ``.tsv``) with a column of sources and one of translations: empty translations are filled in.

The columns are those named by the languages, or by common names (source, target, English, ...). A table without a
column for the target language gets one, at the end of each row. Other columns, quotes and line ends stay.
"""

from collections.abc import Mapping, Sequence

from dragoman.errors import DataError
from dragoman.text.document import Edit, Filling
from dragoman.text.filled.spans import SpannedDocument, TextFile
from dragoman.text.filled.table_layout import TableCell, TableLayout, chosen_columns
from dragoman.text.formats.columns import note_columns, strip_names
from dragoman.text.formats.tables import named_separator


class TableDocument(SpannedDocument):
    """Slots of a table: one per row."""

    bilingual = True

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a table whose first row names its columns.

        Args:
            source, target: names of columns, such as ``en`` and ``de``; None where common names tell.

        Raises:
            DataError: no rows, unclear columns, a row of another length, or a quote that does not close; the message
                names the line.
        """
        self.text_file = TextFile(raw, name)
        super().__init__(self.text_file)
        first = self.text_file.text.partition("\n")[0]
        self.layout = TableLayout.of(name, first)
        rows = self.layout.rows(self.text_file.text, self.text_file.place)[named_separator(name, first) is not None :]
        self.rows = [row for row in rows if len(row) > 1 or row[0].text]
        if not self.rows:
            raise DataError(f"{name}: is empty: its first row must name the columns")
        header = strip_names([cell.text for cell in self.rows[0]])
        self.source, self.target = chosen_columns(header, source, target, f"{name}:1")
        self.noted = [column for column in note_columns(header) if column not in (self.source, self.target)]
        self.added = None if self.target is not None else target
        """Name of the column that the table gets."""
        for row in self.rows[1:]:
            self.add_row(row, len(header))

    def add_row(self, row: Sequence[TableCell], width: int) -> None:
        """Add the slot of a row."""
        place = self.text_file.place(row[0].start)
        if len(row) != width:
            raise DataError(f"{place}: {width} columns expected, {len(row)} found")
        there = row[self.target].text if self.target is not None else ""
        cell = row[self.target] if self.target is not None else row[-1]
        span = (cell.start, cell.end) if self.target is not None else (cell.end, cell.end)
        first = self.text_file.text[row[self.source].start : row[self.source].end].startswith('"')
        self.add(
            span,
            row[self.source].text,
            place=place,
            key=f"{self.text_file.line_of(row[0].start)}",
            write=lambda text, _: self.layout.written(text, quoted=first),
            around=("", "") if self.target is not None else (self.layout.separator, ""),
            filled=bool(there.strip()),
            translation=there,
            notes=tuple(text for column in self.noted if (text := row[column].text.strip())),
        )

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        self.declarations = []
        if self.added is not None:  # every row gets the column
            chosen = {self.home[number].start for number in fillings}
            self.declarations = [
                Edit(row[-1].end, row[-1].end, self.layout.separator + (self.added if number == 0 else ""))
                for number, row in enumerate(self.rows)
                if row[-1].end not in chosen
            ]
        return super().fill(fillings)
