"""Exact and near duplicates within one text of any size: the first of similar pairs is kept.

Two texts are near duplicates when the sets of their four-letter substrings are similar (see ``split.py``), found here
by MinHash (Broder 1997): a signature of ``HASHES`` numbers, each of which two sets share with the probability of their
Jaccard similarity. The numbers are taken in bands of r. Texts that share a whole band are candidates
(locality-sensitive hashing, Indyk & Motwani 1998), and the similarity of candidates is computed exactly. So nothing is
removed that is not near, and r is as large as it may be for texts exactly at the threshold to be missed one time in a
hundred at most.

Bands and kept texts are on disk (``remembered.py``). The signatures are computed by rensa, the extra ``data``.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.text.cleaning.clean import EXAMPLES, normalise
from dragoman.text.cleaning.remembered import SeenTexts, temporary_database, text_hash
from dragoman.text.cleaning.split import grams, jaccard, letters
from dragoman.text.cleaning.workers import map_parallel
from dragoman.text.lines import Pair

HASHES = 128
MISSED = 0.01


@config
class Deduplication:
    """Removal of duplicates within a text."""

    by: Literal["pair", "source", "target"] = "pair"
    """Sides to compare: both together, or one of them, whatever the other is."""
    near: Annotated[float, Field(ge=0.3, le=1)] | None = 0.8
    """Letter similarity from which two are near duplicates, 0.3 to 1; None for exact duplicates only."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of the hashes: another one misses others."""


@dataclass
class DuplicateReport:
    """Outcome of deduplication: filled while ``dedupe`` runs, complete when it ends."""

    read: int = 0
    kept: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    """Number of pairs removed as "exact" and as "near" duplicates."""
    examples: dict[str, list[tuple[Pair, Pair]]] = field(default_factory=dict)
    """First removed pairs of either kind, each with the pair that is kept; an exact duplicate appears twice."""

    def __str__(self) -> str:
        removed = ", ".join(f"{why} duplicates {count:,}" for why, count in self.removed.items() if count)
        return f"{self.kept:,} of {self.read:,} pairs kept" + (f"; removed: {removed}" if removed else "")


def dedupe(
    pairs: Iterable[Pair], cfg: Deduplication, report: DuplicateReport | None = None, *, workers: int = 1
) -> Iterator[Pair]:
    """Yield the pairs that are no duplicate of an earlier kept one, unchanged and in their order.

    White space and the composition of accents make no difference, even to exact duplicates. Signatures are computed by
    ``workers`` processes; the result is the same with any number.

    Raises:
        ConfigError: rensa is not installed.
        DataError: no room on the disk for the temporary tables.
    """
    report = DuplicateReport() if report is None else report
    with temporary_database() as memory:
        exact = SeenTexts(memory)
        near = NeighbourIndex(memory, cfg) if cfg.near is not None else None
        reasons = ["exact", "near"] if near else ["exact"]
        report.removed, report.examples = dict.fromkeys(reasons, 0), {why: [] for why in reasons}
        for pair, tidy, bands in map_parallel(pairs, partial(sign, cfg), workers):
            report.read += 1
            if exact.seen_before(text_hash(*_compared(tidy, cfg))):
                _remove(report, "exact", pair, pair)
            elif near and (other := near.find_or_add(tidy, bands)):
                _remove(report, "near", pair, other)
            else:
                report.kept += 1
                yield pair


def _remove(report: DuplicateReport, why: str, pair: Pair, other: Pair) -> None:
    report.removed[why] += 1
    if len(report.examples[why]) < EXAMPLES:
        report.examples[why].append((pair, other))


def _compared(pair: Pair, cfg: Deduplication) -> tuple[str, ...]:
    return {"pair": tuple(pair), "source": (pair.source,), "target": (pair.target,)}[cfg.by]


# ---- signatures -----------------------------------------------------------------------------------


class Signed(NamedTuple):
    """Pair with its MinHash bands."""

    pair: Pair
    tidy: Pair
    """Normalised pair."""
    bands: list[int]
    """Key of each band of the signature: the same numbers in the same band give the same key. Empty where only exact
    duplicates are wanted."""


def sign(cfg: Deduplication, pairs: Iterable[Pair]) -> list[Signed]:
    """Normalise pairs and compute their bands."""
    bands = _bands(cfg) if cfg.near is not None else lambda tidy: []
    tidied = ((pair, Pair(normalise(pair.source), normalise(pair.target))) for pair in pairs)
    return [Signed(pair, tidy, bands(tidy)) for pair, tidy in tidied]


@lru_cache(1)
def _bands(cfg: Deduplication) -> Callable[[Pair], list[int]]:
    assert cfg.near is not None
    signature_of, (count, rows) = _signer(cfg.seed), band_shape(cfg.near)
    weights = np.random.default_rng(cfg.seed).integers(2**63, size=(count, rows), dtype=np.uint64) * 2 + 1

    def bands(tidy: Pair) -> list[int]:
        signature = np.array(signature_of(sorted(shingles(_compared(tidy, cfg))))[: count * rows], np.uint64)
        keys = (signature.reshape(count, rows) * weights).sum(axis=1)  # modulo 2^64; a collision only adds a candidate
        return keys.view(np.int64).tolist()

    return bands


# ---- near duplicates ------------------------------------------------------------------------------


class NeighbourIndex:
    """Index of the kept pairs by their bands."""

    def __init__(self, memory: sqlite3.Connection, cfg: Deduplication):
        assert cfg.near is not None
        self.cfg, self.near, self.memory, self.kept = cfg, cfg.near, memory, 0
        memory.execute("CREATE TABLE stayed (number INTEGER PRIMARY KEY, source TEXT, target TEXT)")
        memory.execute("CREATE TABLE bands (band INTEGER, number INTEGER, PRIMARY KEY (band, number)) WITHOUT ROWID")
        self.candidates = (
            "SELECT number, source, target FROM stayed WHERE number IN "
            f"(SELECT number FROM bands WHERE band IN ({', '.join('?' * band_shape(cfg.near)[0])})) ORDER BY number"
        )

    def find_or_add(self, pair: Pair, bands: list[int]) -> Pair | None:
        """Return the first kept pair that ``pair`` is near to; if there is none, add ``pair`` and return None."""
        for _, source, target in self.memory.execute(self.candidates, bands):
            other = Pair(source, target)
            if jaccard(*(shingles(_compared(either, self.cfg)) for either in (pair, other))) >= self.near:
                return other
        self.kept += 1
        self.memory.execute("INSERT INTO stayed VALUES (?, ?, ?)", (self.kept, *pair))
        self.memory.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(band, self.kept) for band in bands])
        return None


def shingles(texts: Iterable[str]) -> frozenset[str]:
    """Return the substrings that texts are compared by, each marked with the index of its text."""
    return frozenset(f"{i}{gram}" for i, text in enumerate(texts) for gram in grams(letters(text)))


def band_shape(near: float) -> tuple[int, int]:
    """Return (bands, r numbers per band): r is the largest for which texts of similarity ``near`` share a band with
    probability 1 - MISSED."""
    rows = max(r for r in range(1, HASHES + 1) if r == 1 or (1 - near**r) ** (HASHES // r) <= MISSED)
    return HASHES // rows, rows


def _signer(seed: int) -> Callable[[list[str]], list[int]]:
    try:
        from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:
        raise ConfigError("near duplicates need rensa: pip install rensa (the extra data), or give near=null") from None

    def sign(members: list[str]) -> list[int]:
        minhash = RMinHash(num_perm=HASHES, seed=seed)
        minhash.update(members)
        return minhash.digest()

    return sign
