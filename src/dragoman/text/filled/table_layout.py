"""Layout of a table: how its rows are divided into fields, which columns hold the texts, and how a text is written."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from dragoman.errors import DataError
from dragoman.text.compressed import extension
from dragoman.text.formats.columns import is_header, text_columns
from dragoman.text.formats.tables import SEPARATORS, named_separator


@dataclass(frozen=True)
class TableCell:
    """Field of a row with its position, quotes included."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class TableLayout:
    """Separator of the fields, and whether quotes are text."""

    separator: str
    literal: bool
    """True for a .tsv file, which is taken literally."""

    @classmethod
    def of(cls, name: str, first_line: str) -> "TableLayout":
        """Return the layout of a file: a .csv has the separator that its first line names, or else that divides this
        line most often."""
        if extension(name) == ".tsv":
            return cls("\t", literal=True)
        first = re.sub(r'"[^"]*"', "", first_line)
        return cls(named_separator(name, first_line) or max(SEPARATORS, key=first.count), literal=False)

    @cached_property
    def field(self) -> re.Pattern[str]:
        """Pattern of a field and what ends it."""
        pattern = _LITERAL if self.literal else _QUOTED
        return re.compile(pattern.replace("SEP", re.escape(self.separator)), re.DOTALL)

    def rows(self, text: str, place: Callable[[int], str]) -> list[list[TableCell]]:
        """Return the rows of a text, each a list of cells.

        Args:
            place: function from a position to its place, for messages.

        Raises:
            DataError: a quote that does not open a field, or does not close.
        """
        at, rows, row = 0, [], []
        while at < len(text) or row:
            found = self.field.match(text, at)
            if found is None:
                raise DataError(f"{place(at)}: a quote does not open a field here, or does not close")
            written = found["field"]
            quoted = written.startswith('"') and not self.literal
            value = written[1:-1].replace('""', '"') if quoted else written
            row.append(TableCell(at, found.end("field"), value))
            at = found.end()
            if found["end"] != self.separator:
                rows.append(row)
                row = []
        return rows

    def written(self, text: str, *, quoted: bool) -> str:
        """Return a text as a field; ``quoted`` if the source is."""
        if self.literal:
            return re.sub(r"[\t\r\n]+", " ", text)
        special = any(c in text for c in (self.separator, '"', "\n", "\r")) or text != text.strip()
        return '"' + text.replace('"', '""') + '"' if special or quoted else text


def chosen_columns(header: Sequence[str], source: str | None, target: str | None, name: str) -> tuple[int, int | None]:
    """Return the columns of sources and translations; None for one that is to be added.

    Raises:
        DataError: the names do not tell, or several columns have one of them.
    """
    if twice := next((one for one in (source, target) if one and header.count(one) > 1), None):
        raise DataError(f"{name}: {header.count(twice)} columns are called {twice!r}: rename one")
    if source in header and target:
        return header.index(source), header.index(target) if target in header else None
    named = text_columns(header) if is_header(header) else None
    if named is None:
        raise DataError(
            f"{name}: does not tell which column is translated into which: name them with --from and --to, as in "
            "--from en --to de, or read one as lines with --column"
        )
    return named.first, named.second


_QUOTED = r'(?P<field>"(?:[^"]|"")*"|[^"SEP\r\n][^SEP\r\n]*|)(?P<end>SEP|\r\n|\n|\r|\Z)'
_LITERAL = r"(?P<field>[^SEP\r\n]*)(?P<end>SEP|\r\n|\n|\r|\Z)"
