"""Noise on the sources of a translator: a choice of ``data.noise``, with new random numbers each time a pair is used.

A model trained with noise relies less on single words; and machine-made sources, whose errors are all alike, teach more
with it (Edunov et al., arXiv:1808.09381, section 3). Targets and validation texts stay unchanged.

N tokens of a source.
"""

from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt

from dragoman.config import OneOf, config
from dragoman.data.batch import PairBatch, PairRows, collate
from dragoman.data.corruption import MASK, IdArray, RandomDraw
from dragoman.data.padding import padded
from dragoman.data.pretraining import CorruptedRows
from dragoman.text.context import SEPARATOR
from dragoman.text.lines import MATCH
from dragoman.text.tokens.tokenizer import EOS, Tokenizer

NoiseRate = Annotated[float, Field(ge=0, lt=1)]


@config
class NoNoise:
    """No noise."""

    @property
    def marks(self) -> tuple[str, ...]:
        return ()

    def batch(self, corpus: PairRows, rows: CorruptedRows, seed: int, tokenizer: Tokenizer) -> PairBatch:
        return collate(corpus, rows.rows)


@config
class WordNoise:
    """Word noise: dropped, masked and displaced tokens (Lample et al., arXiv:1711.00043, section 2.3; masking from
    Edunov et al.)."""

    drop: NoiseRate = 0.1
    """Probability that a token is dropped."""
    blank: NoiseRate = 0.1
    """Probability that a remaining token is replaced by the mask token."""
    distance: NonNegativeInt = 3
    """Maximum displacement of a token when tokens are shuffled locally; 0 for none."""

    @property
    def marks(self) -> tuple[str, ...]:
        return (MASK[0],) if self.blank else ()

    def batch(self, corpus: PairRows, rows: CorruptedRows, seed: int, tokenizer: Tokenizer) -> PairBatch:
        """Return the pairs with noise on their sources, a function of (seed, step, row) alone. Tags and matches stay,
        and no token leaves its sentence where the source has several."""
        blank = tokenizer.mark(*MASK) if self.blank else EOS
        marks, separator, sources = tokenizer.marks, tokenizer.find_mark(*SEPARATOR), []
        match = tokenizer.find_mark(*MATCH)
        for row in rows.rows.tolist():
            ids, draw = np.array(corpus[row][0], np.int64), RandomDraw([seed, rows.step, row])
            begin = next(i for i, one in enumerate(ids.tolist()) if one == EOS or one not in marks)
            begin = max([begin, *(np.flatnonzero(ids == match) + 1)]) if match is not None else begin
            ends = [i for i, one in enumerate(ids.tolist()) if one == separator and i > begin]
            parts = [ids[:begin]]
            for start, end in pairwise([begin - 1, *ends, len(ids) - 1]):
                parts += [self.apply(ids[start + 1 : end], draw, blank), ids[end : end + 1]]
            sources.append(np.concatenate(parts))
        return collate(corpus, rows.rows)._replace(source=padded(sources))

    def apply(self, ids: IdArray, draw: RandomDraw, blank: int) -> IdArray:
        """Return a noisy copy of a text; at least one token of a non-empty text remains."""
        if not len(ids):
            return ids
        lost, hidden, moved = (draw.uniform(len(ids)) for _ in range(3))
        lost[np.argmax(lost)] = 1.0
        kept = lost >= self.drop
        left = np.where(hidden < self.blank, blank, ids)[kept]
        # sorting i + u, u from 0 to k + 1, moves nothing by more than k (their section 2.3)
        return left[np.argsort(np.arange(len(left)) + moved[kept] * (self.distance + 1), kind="stable")]


Noise = Annotated[NoNoise | WordNoise, OneOf()]
