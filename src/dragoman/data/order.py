"""In which order a run meets its pairs: a choice of ``data.order``."""

import math
from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field

from dragoman.config import OneOf, config
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.store import Column

CHUNK = 100_000
"""Pairs whose tokens are looked at together."""

# ---- how hard a pair is ---------------------------------------------------------------------------


@config
class Length:
    """The more source tokens, the harder."""

    def of(self, corpus: ParallelCorpus) -> Float[np.ndarray, "N"]:
        return corpus.source.lengths.astype(np.float64)


@config
class Rarity:
    """The less likely its source tokens are, each taken by itself, the harder (Platanios et al., equation 3)."""

    def of(self, corpus: ParallelCorpus) -> Float[np.ndarray, "N"]:
        return token_rarity(corpus.source)


Difficulty = Annotated[Length | Rarity, OneOf()]


def token_rarity(column: Column) -> Float[np.ndarray, "N"]:
    """Of each row, minus the sum of its tokens' log frequencies, in nats."""
    ids = np.asarray(column.ids)
    costs = np.log(len(ids)) - np.log(np.maximum(np.bincount(ids), 1))
    starts = np.asarray(column.starts)
    found = [np.empty(0)]
    for begin in range(0, len(column), CHUNK):  # so that memory does not grow with the tokens
        some = starts[begin : begin + CHUNK + 1]
        ends = np.concatenate([[0.0], np.cumsum(costs[ids[some[0] : some[-1]]])])
        found.append(np.diff(ends[some - some[0]]))
    return np.concatenate(found)


# ---- orders ---------------------------------------------------------------------------------------


@config
class Shuffled:
    """Every pair may come at any time."""

    def difficulties(self, corpus: ParallelCorpus) -> Float[np.ndarray, "N"]:
        return np.zeros(len(corpus))

    def available(self, done: float) -> float:
        return 1.0


@config
class EasyFirst:
    """Only the easiest share of the pairs at first, and more and more of them: competence that grows as a square root
    (Platanios et al., arXiv:1903.09848, equation 7)."""

    difficulty: Difficulty = Rarity()
    begin: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the pairs, the easiest, that the run begins with."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the run after which every pair may come."""

    def difficulties(self, corpus: ParallelCorpus) -> Float[np.ndarray, "N"]:
        """How hard each pair is."""
        return self.difficulty.of(corpus)

    def available(self, done: float) -> float:
        """Which share of the pairs may come, when ``done`` of the run is."""
        return min(1.0, math.sqrt(done / self.until * (1 - self.begin**2) + self.begin**2))


Order = Annotated[Shuffled | EasyFirst, OneOf()]
