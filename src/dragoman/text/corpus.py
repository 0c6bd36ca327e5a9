"""Parallel text as ids on disk: a store (``store.py``) of two columns, source and target.

Every sentence ends in eos.

N pairs, B of them in a batch; S and T are the longest source and target in that batch.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dragoman.text.context import SEPARATOR, ids_before
from dragoman.text.lines import MATCH, TRANSLATION, MatchTexts, Pair, Sourced
from dragoman.text.store import Column, chunks, create_store, open_store
from dragoman.text.tokens.tokenizer import EOS, SOURCE_FRAME, Tokenizer

CHUNK = 10_000
"""Number of pairs in memory while building."""

Progress = Callable[[int, int], None]
"""Called with (pairs done, total pairs, or 0 where the total is not known)."""


class ParallelCorpus:
    """Corpus of N sentence pairs as ids. ``build`` writes one, ``open`` maps it into memory."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.left_out: int = manifest["left_out"]
        """Number of pairs that were too long to be stored."""
        self.sources: dict[str, int] = manifest.get("sources", {})
        """Number of pairs per source, in stored order; empty where no source was given."""
        self.source, self.target = (Column(folder, side, manifest["dtype"][side]) for side in ("source", "target"))

    @classmethod
    def build(
        cls,
        folder: str | Path,
        pairs: Iterable[Pair | Sourced],
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        *,
        longest: int | None = None,
        grouped: bool = False,
        progress: Progress | None = None,
    ) -> "ParallelCorpus":
        """Encode ``pairs`` into ``folder``, a chunk at a time. Each source follows its tags and its context.

        Pairs with a side of more than ``longest`` ids, eos included, are left out and counted. With ``grouped``, the
        pairs of each source must be consecutive and can be found by source. An existing corpus is replaced when the new
        one is complete.

        Raises:
            DataError: the folder holds something else, or cannot be written.
        """
        folder, done, stored = Path(folder), 0, 0
        sources: dict[str, int] = {}
        total = len(pairs) if isinstance(pairs, list | tuple) else 0
        with create_store(folder, {"source": len(source_tokenizer), "target": len(target_tokenizer)}) as store:
            for chunk in chunks(pairs, CHUNK):
                sides = (
                    source_rows(source_tokenizer, chunk, longest),
                    _ended(target_tokenizer, [pair.target for pair in chunk]),
                )
                fit = [longest is None or max(map(len, row)) <= longest for row in zip(*sides, strict=True)]
                store.write(source=list(compress(sides[0], fit)), target=list(compress(sides[1], fit)))
                if grouped:
                    _count(compress(chunk, fit), sources)
                done, stored = done + len(chunk), stored + sum(fit)
                if progress:
                    progress(done, total)
            store.facts = {"pairs": stored, "left_out": done - stored, "sources": sources}
        return cls(folder, store.manifest)

    @classmethod
    def open(cls, folder: str | Path) -> "ParallelCorpus":
        """Map a corpus that ``build`` wrote, after comparing each file with its checksum.

        Raises:
            DataError: no corpus there, one of another format, or a damaged file; the message names it.
        """
        return open_store(Path(folder), cls)

    def __len__(self) -> int:
        return len(self.source)

    def source_indices(self, rows: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        """Return the index, in the order of ``sources``, of the source of each of these pairs."""
        return np.searchsorted(self._ends, rows, side="right")

    @cached_property
    def _ends(self) -> Int[np.ndarray, "sources"]:
        return np.cumsum(list(self.sources.values()), dtype=np.int64)

    def tokens(self) -> dict[str, dict[str, int]]:
        """Return the number of pairs and of tokens, both sides together, per source."""
        rows = zip(self.sources.items(), self.rows_of(list(self.sources)), strict=True)
        return {
            name: {"pairs": size, "tokens": int(self.lengths[where.start : where.stop].sum())}
            for (name, size), where in rows
        }

    def rows_of(self, sources: Sequence[str]) -> list[range]:
        """Return the rows of each of these sources; an empty range for a source without pairs."""
        ends = dict(zip(self.sources, self._ends.tolist(), strict=True))
        return [range(ends[name] - self.sources[name], ends[name]) if name in ends else range(0) for name in sources]

    @cached_property
    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Number of tokens of each source and target, eos included, as int32."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1)

    def __getitem__(self, i: int) -> tuple[Int[np.ndarray, "S"], Int[np.ndarray, "T"]]:
        """Return the ids of pair ``i``, both ending in eos."""
        return self.source[i], self.target[i]

    def padded(self, rows: Int[np.ndarray, "B"]) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B T"]]:
        """Return the ids of these pairs, one per row, padded."""
        return self.source.padded(rows), self.target.padded(rows)


def _count(pairs: Iterable[Pair | Sourced], sources: dict[str, int]) -> None:
    for pair in pairs:
        if isinstance(pair, Sourced):
            assert pair.origin not in sources or pair.origin == next(reversed(sources)), "pairs of a source in a row"
            sources[pair.origin] = sources.get(pair.origin, 0) + 1


def source_rows(tokenizer: Tokenizer, pairs: Sequence[Pair | Sourced], longest: int | None = None) -> list[list[int]]:
    """Encode each source: its tags, its matches and its context (only as much as fits into ``longest``), its text, eos.
    An imported tokenizer may put other marks around the text."""
    sourced = [pair if isinstance(pair, Sourced) else Sourced(*pair, "") for pair in pairs]
    tags = [[tokenizer.tag(tag) for tag in pair.tags.split()] for pair in sourced]
    frame = tokenizer.frame(SOURCE_FRAME)
    rows = [frame.around(row) for row in tokenizer.encode_batch([pair.source for pair in sourced])]
    room = math.inf if longest is None else longest
    left = [room - len(tagged) - len(row) for tagged, row in zip(tags, rows, strict=True)]
    before = _contexts(tokenizer, [pair.context for pair in sourced], left)
    left = [most - len(ids) for most, ids in zip(left, before, strict=True)]
    matches = _matches(tokenizer, [pair.matches for pair in sourced], left)
    return [list(chain(*parts)) for parts in zip(tags, matches, before, rows, strict=True)]


def _contexts(
    tokenizer: Tokenizer, contexts: Sequence[Sequence[str]], room: Sequence[float]
) -> Sequence[Sequence[int]]:
    """Encode the sentences before each text, each followed by the separator: as many as there is room for."""
    if not any(contexts):
        return [()] * len(contexts)
    separator, encoded = tokenizer.mark(*SEPARATOR), _encoded(tokenizer, contexts)
    return [
        ids_before([encoded[text] for text in before], separator, most)
        for before, most in zip(contexts, room, strict=True)
    ]


def _matches(
    tokenizer: Tokenizer, matches: Sequence[Sequence[MatchTexts]], room: Sequence[float]
) -> Sequence[Sequence[int]]:
    """Encode the matches of each text, each followed by its mark: as many of the best as there is room for."""
    if not any(matches):
        return [()] * len(matches)
    end, encoded = tokenizer.mark(*MATCH), _encoded(tokenizer, [texts for each in matches for texts in each])
    between = tokenizer.mark(*TRANSLATION) if any(len(texts) > 1 for each in matches for texts in each) else end

    def ids(texts: MatchTexts) -> list[int]:
        return [*chain(*([*encoded[text], between] for text in texts[:-1])), *encoded[texts[-1]]]

    return [ids_before([ids(texts) for texts in each], end, most) for each, most in zip(matches, room, strict=True)]


def _encoded(tokenizer: Tokenizer, texts: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    """Encode each distinct text once: neighbouring pairs share most of their context."""
    distinct = list(dict.fromkeys(chain.from_iterable(texts)))
    return dict(zip(distinct, tokenizer.encode_batch(distinct), strict=True))


def _ended(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [[*row, EOS] for row in tokenizer.encode_batch(texts)]
