"""Order in which a run uses its pairs: a choice of ``data.order``."""

import math
from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field

from dragoman.config import OneOf, config
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.store import Column

CHUNK = 100_000
"""Pairs whose tokens are processed at a time."""

# ---- difficulty ---------------------------------------------------------------------------


@config
class Length:
    """Difficulty by length: more source tokens are harder."""

    def of(self, corpus: ParallelCorpus) -> Float[np.ndarray, "N"]:
        return corpus.source.lengths.astype(np.float64)


@config
class Rarity:
    """Difficulty by rarity: less likely source tokens, each taken by itself, are harder (Platanios et al., equation
    3)."""

    def of(self, corpus: ParallelCorpus) -> Float[np.ndarray, "N"]:
        return token_rarity(corpus.source)


Difficulty = Annotated[Length | Rarity, OneOf()]


def token_rarity(column: Column) -> Float[np.ndarray, "N"]:
    """Return minus the sum of the log frequencies of each row's tokens, in nats."""
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
    """Uniform order: every pair may be drawn at any time."""

    def difficulties(self, corpus: ParallelCorpus) -> Float[np.ndarray, "N"]:
        return np.zeros(len(corpus))

    def available(self, done: float) -> float:
        return 1.0


@config
class EasyFirst:
    """Curriculum: at first only the easiest fraction of the pairs, then more and more of them, by square-root
    competence (Platanios et al., arXiv:1903.09848, equation 7)."""

    difficulty: Difficulty = Rarity()
    begin: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Fraction of the pairs, the easiest ones, that the run begins with."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Fraction of the run after which every pair may be drawn."""

    def difficulties(self, corpus: ParallelCorpus) -> Float[np.ndarray, "N"]:
        """Return the difficulty of each pair."""
        return self.difficulty.of(corpus)

    def available(self, done: float) -> float:
        """Return the fraction of the pairs that may be drawn once the fraction ``done`` of the run is complete."""
        return min(1.0, math.sqrt(done / self.until * (1 - self.begin**2) + self.begin**2))


Order = Annotated[Shuffled | EasyFirst, OneOf()]
