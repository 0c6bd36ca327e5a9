"""Index of sentences by the vectors that an encoder gives them: those that mean the like, in whatever words.

N sentences, D width of a vector.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float

from dragoman.text.vector_index import VectorIndex

Cosines = dict[int, float]
"""Cosine to a query, by the index of a sentence."""


class SentenceVectors(Protocol):
    """Source of vectors of length 1."""

    def of_memory(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Return the vectors of sentences that are searched."""
        ...

    def of_queries(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Return the vectors of sentences that are asked for; that of each depends on no other."""
        ...


class SentenceIndex:
    """Index of N sentences, some of which may be the same."""

    def __init__(self, texts: Sequence[str], vectors: SentenceVectors, *, approximate: bool = False):
        """
        Raises:
            ConfigError: as ``VectorIndex``.
        """
        self.vectors = vectors
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        self.rows: list[list[int]] = [[] for _ in numbers]
        """Indices of the sentences with each distinct text."""
        for row, text in enumerate(texts):
            self.rows[numbers[text]].append(row)
        self.index = VectorIndex(vectors.of_memory(list(numbers)), approximate=approximate) if numbers else None

    def candidates(self, texts: Sequence[str], count: int | None) -> list[Cosines]:
        """Return for each text the cosines of the ``count`` nearest distinct sentences; None for all."""
        if self.index is None or not texts:
            return [{} for _ in texts]
        found = self.index.nearest(self.vectors.of_queries(texts), count)
        return [
            {row: float(cosine) for number, cosine in zip(numbers, cosines, strict=True) for row in self.rows[number]}
            for numbers, cosines in found
        ]
