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
"""Number of rows in memory."""


@config
class Parquet:
    """Columns of a Parquet file."""

    path: str
    """Path of a .parquet file."""
    source: str = "source"
    """Column of the source; a dot leads into a struct, as in translation.en."""
    target: str = "target"
    """Column of the target."""
    document: str | None = None
    """Column with the document of a row; None where empty rows separate documents, if any do."""


def read_parquet(cfg: Parquet) -> Iterator[Pair | None]:
    """Yield the pairs of two columns; a null cell is an empty text. None is yielded where the document changes.

    Raises:
        DataError: no such file, damaged data, columns that are missing or hold no text, or an invalid text.
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"{cfg.path}: Parquet needs pyarrow: pip install pyarrow (the extra parquet)") from None
    try:
        with parquet.ParquetFile(cfg.path, page_checksum_verification=True) as file:
            columns = _by_name(file.schema_arrow, (cfg.source, cfg.target), cfg.path)
            for name in (cfg.source, cfg.target):
                _check_text(_column(columns, name, cfg.path), name, cfg.path)
            names = [name for name in (cfg.source, cfg.target, cfg.document) if name is not None]
            _column(columns, names[-1], cfg.path)
            row, boundaries = 0, DocumentEnds()
            for batch in file.iter_batches(BATCH, columns=[*dict.fromkeys(names)]):
                for source, target, *document in zip(*(_cells(batch, name) for name in names), strict=True):
                    row += 1
                    where = f"{cfg.path}: row {row}"
                    if boundaries.starts_new(document):
                        yield None
                    yield Pair(check_string(source or "", where), check_string(target or "", where))
    except FileNotFoundError:
        raise DataError(f"{cfg.path}: no such file") from None
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{cfg.path}: not Parquet, or damaged: {str(error).splitlines()[0]}") from None
    except OSError as error:
        reason = str(error.strerror or error).splitlines()[0]
        raise DataError(f"{cfg.path}: cannot be read, or damaged: {reason}") from None


def _by_name(fields: Any, requested: Sequence[str], path: str) -> dict[str, Any]:
    found = list(_columns(fields))
    names = [name for name, _ in found]
    for name in requested:
        if names.count(name) > 1:
            raise DataError(f"{path}: several columns are named {name!r}: give each a name of its own")
    return dict(found)


def _column(columns: dict[str, Any], name: str, path: str) -> Any:
    if name not in columns:
        raise DataError(f"{path}: no column {name!r} among {', '.join(map(repr, columns)) or 'none'}")
    return columns[name]


def _check_text(kind: Any, name: str, path: str) -> None:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not any(is_text(kind) for is_text in (types.is_string, types.is_large_string, types.is_string_view)):
        raise DataError(f"{path}: column {name!r} holds {kind}, not text")


def _columns(fields: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and type of every column, those inside structs by the path to them."""
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
