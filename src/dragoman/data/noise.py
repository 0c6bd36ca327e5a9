"""Noise in what a translator reads: a choice of ``data.noise``, drawn anew whenever a pair comes.

A model that has to bear with noise leans less on single words; and sources made by a machine, whose mistakes are all of
one kind, teach more with it (Edunov et al., arXiv:1808.09381, section 3). Targets stay as they are, and so do the texts
of validation.

N tokens of a source.
"""

from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt

from dragoman.config import OneOf, config
from dragoman.data.batch import PairBatch, collate
from dragoman.data.corruption import MASK, IdArray, RandomDraw
from dragoman.data.pretraining import CorruptedRows, padded
from dragoman.text.context import SEPARATOR
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.tokens.tokenizer import EOS, Tokenizer

Chance = Annotated[float, Field(ge=0, lt=1)]


@config
class NoNoise:
    """Sources as they are."""

    @property
    def marks(self) -> tuple[str, ...]:
        return ()

    def batch(self, corpus: ParallelCorpus, rows: CorruptedRows, seed: int, tokenizer: Tokenizer) -> PairBatch:
        return collate(corpus, rows.rows)


@config
class WordNoise:
    """Tokens that are lost, hidden, and out of their place (Lample et al., arXiv:1711.00043, section 2.3; hidden ones
    from Edunov et al.)."""

    drop: Chance = 0.1
    """Of each token, the chance to be left out."""
    blank: Chance = 0.1
    """Of each token that is left, the chance that a mark stands in its place."""
    distance: NonNegativeInt = 3
    """Tokens change places so that none ends up further from its own than this; 0 for none."""

    @property
    def marks(self) -> tuple[str, ...]:
        return (MASK[0],) if self.blank else ()

    def batch(self, corpus: ParallelCorpus, rows: CorruptedRows, seed: int, tokenizer: Tokenizer) -> PairBatch:
        """The pairs, their sources as a function of (seed, step, row) alone; tags stay, and nothing leaves its sentence
        where others are read before it."""
        blank = tokenizer.mark(*MASK) if self.blank else EOS
        marks, separator, sources = tokenizer.marks, tokenizer.find_mark(*SEPARATOR), []
        for row in rows.rows.tolist():
            ids, draw = np.array(corpus[row][0], np.int64), RandomDraw([seed, rows.step, row])
            begin = next(i for i, one in enumerate(ids.tolist()) if one == EOS or one not in marks)
            ends = [i for i, one in enumerate(ids.tolist()) if one == separator and i > begin]
            parts = [ids[:begin]]
            for start, end in pairwise([begin - 1, *ends, len(ids) - 1]):
                parts += [self.apply(ids[start + 1 : end], draw, blank), ids[end : end + 1]]
            sources.append(np.concatenate(parts))
        return collate(corpus, rows.rows)._replace(source=torch.from_numpy(padded(sources)))

    def apply(self, ids: IdArray, draw: RandomDraw, blank: int) -> IdArray:
        """What is read of a text; at least one token is left of a text that has any."""
        if not len(ids):
            return ids
        lost, hidden, moved = (draw.uniform(len(ids)) for _ in range(3))
        lost[np.argmax(lost)] = 1.0
        kept = lost >= self.drop
        left = np.where(hidden < self.blank, blank, ids)[kept]
        # sorting i + u, u from 0 to k + 1, moves nothing by more than k (their section 2.3)
        return left[np.argsort(np.arange(len(left)) + moved[kept] * (self.distance + 1), kind="stable")]


Noise = Annotated[NoNoise | WordNoise, OneOf()]
