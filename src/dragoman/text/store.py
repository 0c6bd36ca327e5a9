"""Rows of ids or other numbers on disk, in columns: written once, then mapped into memory, so their number is not
limited by it.

A folder holds, for each column, its ids end to end (``text.ids``) and the start of each row in them (``text.starts``),
and ``manifest.json`` with facts about the whole and each file's size and checksum. The folder appears complete or not
at all.

N rows, B of them in a batch, L the longest in that batch.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from dragoman import durable
from dragoman.errors import DataError

FILL = 0
"""Id that pads short rows: the id of padding in every vocabulary."""
FORMAT = 1
MANIFEST = "manifest.json"

StoreRow = Sequence[int] | np.ndarray

# ---- reading --------------------------------------------------------------------------------------


class Column:
    """Column of N rows of ids, mapped into memory."""

    def __init__(self, folder: Path, name: str, dtype: str):
        self.ids = _map(folder / f"{name}.ids", np.dtype(dtype))
        self.starts = _map(folder / f"{name}.starts", np.dtype("<i8"))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> Int[np.ndarray, "N"]:
        """Return the number of ids in each row, as int32."""
        return np.diff(self.starts).astype(np.int32)

    def __getitem__(self, i: int) -> Int[np.ndarray, "L"]:
        i = range(len(self))[i]  # accepts negative indices and raises IndexError as a list does
        return np.array(self.ids[self.starts[i] : self.starts[i + 1]], np.int64)

    def raw_row(self, i: int) -> np.ndarray:
        """Return row ``i`` as stored, in the column's own dtype."""
        return np.array(self.ids[self.starts[i] : self.starts[i + 1]])

    def padded(self, rows: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B L"]:
        """Return the ids of these rows, padded."""
        starts, ends = self.starts[rows], self.starts[rows + 1]
        at = starts[:, None] + np.arange((ends - starts).max())  # (B, L)
        inside = at < ends[:, None]
        return np.where(inside, self.ids[np.where(inside, at, 0)], FILL).astype(np.int64)


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)  # mmap refuses an empty file


class Store:
    """Columns of ids and the ``facts`` stored with them. ``build_store`` writes one, ``open`` maps it."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]):
        self.folder = folder
        self.facts = {name: value for name, value in manifest.items() if name not in ("format", "dtype", "files")}
        self.columns = {name: Column(folder, name, dtype) for name, dtype in manifest["dtype"].items()}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @classmethod
    def open(cls, folder: str | Path) -> "Store":
        """Map a store that ``build_store`` wrote.

        Raises:
            DataError: as ``open_store``.
        """
        return open_store(Path(folder), cls)


T = TypeVar("T")


def open_store(folder: Path, read: Callable[[Path, dict[str, Any]], T]) -> T:
    """Return ``read(folder, manifest)``, after comparing each file with its checksum.

    Raises:
        DataError: no corpus there, one of another format, or a damaged file; the message names it.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise DataError(f"{folder}: a corpus of format {manifest['format']}, not {FORMAT}: build it again")
        for name, described in manifest["files"].items():
            if _describe(folder / name) != described:
                raise DataError(f"{folder / name}: damaged (size or checksum differ from {MANIFEST}): build it again")
        return read(folder, manifest)
    except FileNotFoundError as error:
        if not folder.exists():
            raise DataError(f"{folder}: no such folder") from None
        raise DataError(f"{error.filename}: no such file: {folder} is not a complete corpus: build it again") from None
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder / MANIFEST}: damaged: build the corpus again") from None


# ---- writing --------------------------------------------------------------------------------------


class Builder:
    """Appends rows to each column and collects ``facts`` for the manifest."""

    def __init__(self, columns: Mapping[str, "_Writer"]):
        self.columns = columns
        self.facts: dict[str, Any] = {}
        self.manifest: dict[str, Any] = {}
        """Complete once the block has ended."""

    def write(self, **rows: Sequence[StoreRow]) -> None:
        """Append the same number of rows to each column."""
        for name, column_rows in rows.items():
            self.columns[name].write(column_rows)


@contextmanager
def create_store(folder: Path, sizes: Mapping[str, int | str]) -> Iterator[Builder]:
    """Create a store and fill it in the block. ``sizes`` gives, by column name, the number of different ids or numpy's
    name of the dtype. An existing store is replaced when the new one is complete.

    Raises:
        DataError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise DataError(f"{folder}: exists and is not a corpus: choose another name, or remove it")
    try:
        with durable.folder(folder) as partial:
            with ExitStack() as stack:
                builder = Builder(
                    {name: stack.enter_context(_Writer(partial, name, size)) for name, size in sizes.items()}
                )
                yield builder
            builder.manifest = {
                "format": FORMAT,
                **builder.facts,
                "dtype": {name: writer.dtype.str for name, writer in builder.columns.items()},
                "files": {path.name: _describe(path) for path in sorted(partial.iterdir())},
            }
            durable.write(partial / MANIFEST, json.dumps(builder.manifest, indent=1).encode())
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from None


class _Writer:
    """Appends the rows of one column to its two files."""

    def __init__(self, folder: Path, name: str, size: int | str):
        self.end = 0
        self.dtype = np.dtype(size if isinstance(size, str) else "<u2" if size <= 1 << 16 else "<u4")
        self.ids = (folder / f"{name}.ids").open("wb")
        self.starts = (folder / f"{name}.starts").open("wb")
        self.starts.write(np.zeros(1, "<i8").tobytes())

    def write(self, rows: Sequence[StoreRow]) -> None:
        ends = self.end + np.cumsum([len(row) for row in rows], dtype="<i8")
        self.starts.write(ends.tobytes())
        self.end = int(ends[-1]) if len(rows) else self.end
        if rows and isinstance(rows[0], np.ndarray):
            self.ids.write(np.concatenate(rows).astype(self.dtype).tobytes())
        else:
            self.ids.write(np.fromiter(chain.from_iterable(rows), self.dtype).tobytes())

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.ids.close()
        self.starts.close()


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of ``size``; the last may be shorter."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk
