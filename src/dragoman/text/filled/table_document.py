"""Tables (``.csv``, ``.tsv``) with a column of sources and one of translations: empty translations are filled in.

The columns are those named by the languages, or by common names (source, target, English, ...). A table without a
column for the target language gets one, at the end of each row. Other columns, quotes and line ends stay.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dragoman.errors import DataError
from dragoman.text.compressed import extension
from dragoman.text.document import Edit, Filling
from dragoman.text.filled.spans import SpannedDocument, TextFile
from dragoman.text.formats.columns import is_header, note_columns, strip_names, text_columns
from dragoman.text.formats.tables import SEPARATORS


@dataclass(frozen=True)
class TableCell:
    """Field of a row with its position, quotes included."""

    start: int
    end: int
    text: str


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
        self.separator = "\t" if extension(name) == ".tsv" else self.separator_of()
        self.rows = [row for row in self.cells() if len(row) > 1 or row[0].text]
        if not self.rows:
            raise DataError(f"{name}: is empty: its first row must name the columns")
        header = strip_names([cell.text for cell in self.rows[0]])
        self.source, self.target = self.columns(header, source, target)
        self.noted = [column for column in note_columns(header) if column not in (self.source, self.target)]
        self.added = None if self.target is not None else target
        """Name of the column that the table gets."""
        for row in self.rows[1:]:
            self.add_row(row, len(header))

    def separator_of(self) -> str:
        """Return the separator: the one that divides the first line most often."""
        first = re.sub(r'"[^"]*"', "", self.text_file.text.partition("\n")[0])
        return max(SEPARATORS, key=first.count)

    def columns(self, header: Sequence[str], source: str | None, target: str | None) -> tuple[int, int | None]:
        """Return the columns of sources and translations; None for one that is to be added."""
        if source in header and target:
            return header.index(source), header.index(target) if target in header else None
        named = text_columns(header) if is_header(header) else None
        if named is None:
            raise DataError(
                f"{self.text_file.name}:1: does not tell which column is translated into which: name them with --from "
                "and --to, as in --from en --to de, or read one as lines with --column"
            )
        return named.first, named.second

    def cells(self) -> list[list[TableCell]]:
        """Return the rows, each a list of cells."""
        text, at, rows, row = self.text_file.text, 0, [], []
        pattern = _LITERAL if self.separator == "\t" and extension(self.text_file.name) == ".tsv" else _QUOTED
        field = re.compile(pattern.replace("SEP", re.escape(self.separator)), re.DOTALL)
        while at < len(text) or row:
            found = field.match(text, at)
            if found is None:
                raise DataError(f"{self.text_file.place(at)}: a quote does not open a field here, or does not close")
            written = found["field"]
            quoted = written.startswith('"') and pattern is _QUOTED
            value = written[1:-1].replace('""', '"') if quoted else written
            row.append(TableCell(at, found.end("field"), value))
            at = found.end()
            if found["end"] != self.separator:
                rows.append(row)
                row = []
        return rows

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
            write=lambda text, _: self.written_cell(text, quoted=first),
            around=("", "") if self.target is not None else (self.separator, ""),
            filled=bool(there.strip()),
            translation=there,
            notes=tuple(text for column in self.noted if (text := row[column].text.strip())),
        )

    def written_cell(self, text: str, *, quoted: bool) -> str:
        """Return a text as a field."""
        if extension(self.text_file.name) == ".tsv":
            return re.sub(r"[\t\r\n]+", " ", text)
        special = any(c in text for c in (self.separator, '"', "\n", "\r")) or text != text.strip()
        return '"' + text.replace('"', '""') + '"' if special or quoted else text

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        self.declarations = []
        if self.added is not None:  # every row gets the column
            chosen = {self.home[number].start for number in fillings}
            self.declarations = [
                Edit(row[-1].end, row[-1].end, self.separator + (self.added if number == 0 else ""))
                for number, row in enumerate(self.rows)
                if row[-1].end not in chosen
            ]
        return super().fill(fillings)


_QUOTED = r'(?P<field>"(?:[^"]|"")*"|[^"SEP\r\n][^SEP\r\n]*|)(?P<end>SEP|\r\n|\n|\r|\Z)'
_LITERAL = r"(?P<field>[^SEP\r\n]*)(?P<end>SEP|\r\n|\n|\r|\Z)"
