"""Parallel text as ids on disk: a store (``store.py``) of two columns, source and target.

Every sentence ends in eos.

N pairs, B of them in a batch, S and T the longest source and target there.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dragoman.text.lines import Pair
from dragoman.text.store import Column, building, chunks, opened
from dragoman.text.tokenizer import EOS, Tokenizer

CHUNK = 10_000
"""Pairs in memory while building."""

Progress = Callable[[int, int], None]
"""(pairs done, pairs in all or 0 where that is not known)."""


class ParallelCorpus:
    """N pairs of sentences as ids. ``build`` writes one, ``open`` maps it."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.left_out: int = manifest["left_out"]
        """Pairs that were too long to be stored."""
        self.source, self.target = (Column(folder, side, manifest["dtype"][side]) for side in ("source", "target"))

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
        total = len(pairs) if isinstance(pairs, list | tuple) else 0
        with building(folder, {"source": len(source_tokenizer), "target": len(target_tokenizer)}) as store:
            for chunk in chunks(pairs, CHUNK):
                sides = (
                    _ended(source_tokenizer, [pair.source for pair in chunk]),
                    _ended(target_tokenizer, [pair.target for pair in chunk]),
                )
                rows = [row for row in zip(*sides, strict=True) if longest is None or max(map(len, row)) <= longest]
                store.write(source=[row[0] for row in rows], target=[row[1] for row in rows])
                done, stored = done + len(chunk), stored + len(rows)
                if progress:
                    progress(done, total)
            store.facts = {"pairs": stored, "left_out": done - stored}
        return cls(folder, store.manifest)

    @classmethod
    def open(cls, folder: str | Path) -> "ParallelCorpus":
        """Map a corpus that ``build`` wrote, after comparing each file with its checksum.

        Raises:
            DataError: no corpus there, one of another format, or a damaged file, by name.
        """
        return opened(Path(folder), cls)

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Tokens of each source and target, eos included, as int32."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1)

    def __getitem__(self, i: int) -> tuple[Int[np.ndarray, "S"], Int[np.ndarray, "T"]]:
        """The ids of pair ``i``, both ending in eos."""
        return self.source[i], self.target[i]

    def padded(self, rows: Int[np.ndarray, "B"]) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B T"]]:
        """The ids of these pairs, one a row, filled up with padding."""
        return self.source.padded(rows), self.target.padded(rows)


def _ended(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [[*row, EOS] for row in tokenizer.encode_batch(texts)]
