"""Parallel text as ids on disk: built once, then mapped into memory, so that its size does not matter to a run.

A folder holds, for each side, its ids end to end (``source.ids``) and where each sentence begins in them
(``source.starts``), and ``manifest.json`` with the number of pairs and each file's size and checksum. It appears whole
or not at all. Every sentence ends in eos.

N pairs, B of them in a batch, S and T the longest source and target there.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from dragoman import durable
from dragoman.errors import DataError
from dragoman.text.lines import Pair
from dragoman.text.tokenizer import EOS, PAD, Tokenizer

FORMAT = 1
CHUNK = 10_000
"""Pairs in memory while building."""
MANIFEST = "manifest.json"
SIDES = ("source", "target")

Progress = Callable[[int, int], None]
"""(pairs done, pairs in all or 0 where that is not known)."""


class ParallelCorpus:
    """N pairs of sentences as ids. ``build`` writes one, ``open`` maps it."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.left_out: int = manifest["left_out"]
        """Pairs that were too long to be stored."""
        self.source, self.target = (_Side(folder, side, manifest["dtype"][side]) for side in SIDES)

    @classmethod
    def build(
        cls,
        folder: str | Path,
        pairs: Iterable[Pair],
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        *,
        longest: int | None = None,
        progress: Progress | None = None,
    ) -> "ParallelCorpus":
        """Encode ``pairs`` into ``folder``, a chunk at a time; pairs with a side of more than ``longest`` ids, eos
        included, are left out and counted. A corpus that was there is replaced when the new one is complete.

        Raises:
            DataError: the folder holds something else, or cannot be written.
        """
        folder, done, stored = Path(folder), 0, 0
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise DataError(f"{folder}: exists and is not a corpus: choose another name, or remove it")
        total = len(pairs) if isinstance(pairs, list | tuple) else 0
        try:
            with durable.folder(folder) as partial:
                with ExitStack() as stack:
                    source = stack.enter_context(_Writer(partial, "source", source_tokenizer))
                    target = stack.enter_context(_Writer(partial, "target", target_tokenizer))
                    for chunk in _chunks(pairs):
                        sides = source.encode([p.source for p in chunk]), target.encode([p.target for p in chunk])
                        rows = [
                            row for row in zip(*sides, strict=True) if longest is None or max(map(len, row)) <= longest
                        ]
                        source.write([row[0] for row in rows])
                        target.write([row[1] for row in rows])
                        done, stored = done + len(chunk), stored + len(rows)
                        if progress:
                            progress(done, total)
                manifest = {
                    "format": FORMAT,
                    "pairs": stored,
                    "left_out": done - stored,
                    "dtype": {"source": source.dtype.str, "target": target.dtype.str},
                    "files": {path.name: _describe(path) for path in sorted(partial.iterdir())},
                }
                durable.write(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
        except OSError as error:
            raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from None
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: str | Path) -> "ParallelCorpus":
        """Map a corpus that ``build`` wrote, after comparing each file with its checksum.

        Raises:
            DataError: no corpus there, one of another format, or a damaged file, by name.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            if manifest["format"] != FORMAT:
                raise DataError(f"{folder}: a corpus of format {manifest['format']}, not {FORMAT}: build it again")
            for name, described in manifest["files"].items():
                if _describe(folder / name) != described:
                    raise DataError(
                        f"{folder / name}: damaged (size or checksum differ from {MANIFEST}): build it again"
                    )
            return cls(folder, manifest)
        except FileNotFoundError as error:
            raise DataError(f"{error.filename}: no such file: {folder} is not a whole corpus, build it again") from None
        except OSError as error:
            raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{folder / MANIFEST}: damaged: build the corpus again") from None

    def __len__(self) -> int:
        return len(self.source.starts) - 1

    @cached_property
    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Tokens of each source and target, eos included, as int32."""
        return np.stack([np.diff(side.starts).astype(np.int32) for side in (self.source, self.target)], axis=1)

    def __getitem__(self, i: int) -> tuple[Int[np.ndarray, "S"], Int[np.ndarray, "T"]]:
        """The ids of pair ``i``, both ending in eos."""
        return self.source[i], self.target[i]

    def padded(self, rows: Int[np.ndarray, "B"]) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B T"]]:
        """The ids of these pairs, one a row, filled up with padding."""
        return self.source.padded(rows), self.target.padded(rows)


class _Side:
    def __init__(self, folder: Path, side: str, dtype: str):
        self.ids = _map(folder / f"{side}.ids", np.dtype(dtype))
        self.starts = _map(folder / f"{side}.starts", np.dtype("<i8"))

    def __getitem__(self, i: int) -> Int[np.ndarray, "L"]:
        i = range(len(self.starts) - 1)[i]  # counts from the end too, and refuses what is not there
        return np.array(self.ids[self.starts[i] : self.starts[i + 1]], np.int64)

    def padded(self, rows: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B L"]:
        starts, ends = self.starts[rows], self.starts[rows + 1]
        at = starts[:, None] + np.arange((ends - starts).max())  # (B, L)
        inside = at < ends[:, None]
        return np.where(inside, self.ids[np.where(inside, at, 0)], PAD).astype(np.int64)


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)  # nothing cannot be mapped


class _Writer:
    """Appends encoded sentences of one side to its two files."""

    def __init__(self, folder: Path, side: str, tokenizer: Tokenizer):
        self.tokenizer, self.end = tokenizer, 0
        self.dtype = np.dtype("<u2" if len(tokenizer) <= 1 << 16 else "<u4")
        self.ids = (folder / f"{side}.ids").open("wb")
        self.starts = (folder / f"{side}.starts").open("wb")
        self.starts.write(np.zeros(1, "<i8").tobytes())

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[*row, EOS] for row in self.tokenizer.encode_batch(texts)]

    def write(self, rows: list[list[int]]) -> None:
        ends = self.end + np.cumsum([len(row) for row in rows], dtype="<i8")
        self.starts.write(ends.tobytes())
        self.end = int(ends[-1]) if rows else self.end
        self.ids.write(np.fromiter(chain.from_iterable(rows), self.dtype).tobytes())

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.ids.close()
        self.starts.close()


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


T = TypeVar("T")


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    items = iter(items)
    while chunk := list(islice(items, CHUNK)):
        yield chunk
