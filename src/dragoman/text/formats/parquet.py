"""Parquet: columns of a large table, read a batch at a time. Needs the extra ``parquet``."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dragoman.config import config
from dragoman.errors import ConfigError, DataError
from dragoman.text.lines import DocumentEnds, Pair, check_string

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

BATCH = 8192
"""Rows in memory."""


@config
class Parquet:
    path: str
    """A .parquet file."""
    source: str = "source"
    """Column of the source; a dot leads into a struct, as in translation.en."""
    target: str = "target"
    """Column of the target."""
    document: str | None = None
    """Column that says which document a row is of; None where rows that are empty tell documents apart, if any do."""


def read_parquet(cfg: Parquet) -> Iterator[Pair | None]:
    """The pairs of two columns; where a cell is null, its text is empty. None where the document changes.

    Raises:
        DataError: no such file, damaged, columns that are not there or hold no text, text that is none.
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"{cfg.path}: Parquet needs pyarrow: pip install 'dragoman[parquet]'") from None
    try:
        with parquet.ParquetFile(cfg.path, page_checksum_verification=True) as file:
            held = _by_name(file.schema_arrow, (cfg.source, cfg.target), cfg.path)
            for name in (cfg.source, cfg.target):
                _check_text(_column(held, name, cfg.path), name, cfg.path)
            names = [name for name in (cfg.source, cfg.target, cfg.document) if name is not None]
            _column(held, names[-1], cfg.path)
            row, ends = 0, DocumentEnds()
            for batch in file.iter_batches(BATCH, columns=[*dict.fromkeys(names)]):
                for source, target, *document in zip(*(_cells(batch, name) for name in names), strict=True):
                    row += 1
                    where = f"{cfg.path}: row {row}"
                    if ends.before(document):
                        yield None
                    yield Pair(check_string(source or "", where), check_string(target or "", where))
    except FileNotFoundError:
        raise DataError(f"{cfg.path}: no such file") from None
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{cfg.path}: not Parquet, or damaged: {str(error).splitlines()[0]}") from None
    except OSError as error:
        reason = str(error.strerror or error).splitlines()[0]
        raise DataError(f"{cfg.path}: cannot be read, or damaged: {reason}") from None


def _by_name(fields: Any, asked: Sequence[str], path: str) -> dict[str, Any]:
    found = list(_columns(fields))
    names = [name for name, _ in found]
    for name in asked:
        if names.count(name) > 1:
            raise DataError(f"{path}: several columns are named {name!r}: give each a name of its own")
    return dict(found)


def _column(columns: dict[str, Any], name: str, path: str) -> Any:
    if name not in columns:
        raise DataError(f"{path}: no column {name!r} among {', '.join(map(repr, columns)) or 'none'}")
    return columns[name]


def _check_text(held: Any, name: str, path: str) -> None:
    from pyarrow import types

    held = held.value_type if types.is_dictionary(held) else held
    if not any(is_text(held) for is_text in (types.is_string, types.is_large_string, types.is_string_view)):
        raise DataError(f"{path}: column {name!r} holds {held}, not text")


def _columns(fields: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and type of every column, those inside structs by the path to them."""
    from pyarrow import types

    for field in fields:
        if types.is_struct(field.type):
            yield from _columns(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


def _cells(batch: "pyarrow.RecordBatch", name: str) -> list[Any]:
    if name in batch.schema.names:
        return batch.column(name).to_pylist()
    first, _, rest = name.partition(".")
    cells: list[Any] = batch.column(first).to_pylist()
    for key in rest.split("."):
        cells = [None if cell is None else cell[key] for cell in cells]
    return cells
