"""Rows of Parquet files as lines of a bulk job, and the file that is put together from their translations.

Both read a batch of rows at a time. Needs the extra ``parquet``.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from dragoman.errors import ConfigError, DataError
from dragoman.serve.bulk.table_rows import TableRow
from dragoman.text.filled.table_layout import chosen_columns
from dragoman.text.formats.columns import note_columns
from dragoman.text.formats.parquet import BATCH
from dragoman.text.lines import check_string

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

GROUP = 65_536
"""Rows of a group in the output, and of those that are in memory when it is written."""


@dataclass(frozen=True)
class ParquetTable:
    """Parquet file of which one column is translated into another."""

    path: str
    source: str | None
    target: str | None
    """Names of the columns; None where common names tell."""

    def rows(self) -> Iterator[str]:
        """Yield the rows as lines; their translations are written as JSON.

        Raises:
            DataError: it cannot be read, or its columns are unclear or hold no text; the message names the row.
            ConfigError: pyarrow is not installed.
        """
        number = 0
        with self.opened() as file:
            names = file.schema_arrow.names
            source, target = self.columns(file)
            there = None if target not in names else names.index(target)
            noted = [names[i] for i in note_columns(names) if names[i] not in (source, target)]
            wanted = [source, *noted, *([] if there is None else [target])]
            for batch in file.iter_batches(BATCH, columns=wanted):
                columns = {name: batch.column(batch.schema.get_field_index(name)).to_pylist() for name in wanted}
                for row in range(batch.num_rows):
                    number += 1
                    place = f"{self.path}: row {number}"
                    text = check_string(columns[source][row] or "", place)
                    filled = there is not None and bool((columns[target][row] or "").strip())
                    yield _row(text, place, [columns[name][row] for name in noted], filled=filled).spelled()

    def assemble(self, output: BinaryIO, parts: Iterable[bytes]) -> None:
        """Write the table with the translations in ``parts``, lines of JSON for all rows.

        Raises:
            DataError: the file has changed meanwhile.
        """
        import pyarrow as arrow
        from pyarrow import parquet

        answers = _lines(parts)
        with self.opened() as file:
            _, target = self.columns(file)
            schema = file.schema_arrow
            if target not in schema.names:
                schema = schema.append(arrow.field(target, arrow.string()))
            place = schema.get_field_index(target)
            with parquet.ParquetWriter(output, schema, compression=_compression(file)) as writer:
                for batch in file.iter_batches(GROUP):
                    found = [json.loads(line) for _, line in zip(range(batch.num_rows), answers, strict=False)]
                    if len(found) < batch.num_rows:
                        raise DataError(f"{self.path}: changed while it was translated: run it again with --restart")
                    writer.write_batch(_with_column(batch, found, schema, place))

    def columns(self, file: "ParquetFile") -> tuple[str, str]:
        """Return the names of the two columns.

        Raises:
            DataError: they are unclear, occur twice, or hold no text.
        """
        from pyarrow import types

        names = file.schema_arrow.names
        first, second = chosen_columns(names, self.source, self.target, self.path)
        source, target = names[first], names[second] if second is not None else (self.target or "")
        for name in {source, target} & set(names):
            if names.count(name) > 1:
                raise DataError(f"{self.path}: several columns are named {name!r}: give each a name of its own")
            kind = file.schema_arrow.field(name).type
            if not (types.is_string(kind) or types.is_large_string(kind)):
                raise DataError(f"{self.path}: column {name!r} holds {kind}, not text")
        return source, target

    @contextmanager
    def opened(self) -> "Iterator[ParquetFile]":
        """Open the file; errors while it is read are the user's."""
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError:
            raise ConfigError(f"{self.path}: Parquet needs pyarrow: pip install pyarrow (the extra parquet)") from None
        try:
            with parquet.ParquetFile(self.path, page_checksum_verification=True) as file:
                yield file
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file") from None
        except (arrow.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: not Parquet, or damaged: {str(error).splitlines()[0]}") from None


def _row(text: str, place: str, notes: list[Any], *, filled: bool) -> TableRow:
    if filled or not text.strip():
        return TableRow("null\n", source=text)
    kept = tuple(note for note in notes if isinstance(note, str) and note.strip())
    return TableRow("", "\n", text, kept, wanted=True, separator="", place=place)


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of consecutive pieces of a file."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


def _with_column(
    batch: "pyarrow.RecordBatch", found: list[str | None], schema: "pyarrow.Schema", place: int
) -> "pyarrow.RecordBatch":
    """Return a batch with the translations in its column; rows without a new one keep what they have."""
    import pyarrow as arrow

    kind = schema.field(place).type
    if place == batch.num_columns:
        return arrow.RecordBatch.from_arrays([*batch.columns, arrow.array(found, kind)], schema=schema)
    there = batch.column(place).to_pylist()
    cells = [old if new is None else new for old, new in zip(there, found, strict=True)]
    columns = [*batch.columns[:place], arrow.array(cells, kind), *batch.columns[place + 1 :]]
    return arrow.RecordBatch.from_arrays(columns, schema=schema)


def _compression(file: "ParquetFile") -> str:
    """Return the codec of the file, that of its first column."""
    if file.metadata.num_row_groups and file.metadata.num_columns:
        codec = file.metadata.row_group(0).column(0).compression
        return "none" if codec == "UNCOMPRESSED" else codec.lower()
    return "snappy"
