"""Match dropout: some sentences of a batch are read without their retrieved matches (``data.retrieval``).

Which ones is a function of (seed, step, row) alone, so a resumed run sees what an uninterrupted one would have seen.
"""

import numpy as np

from dragoman.data.batch import PairBatch
from dragoman.data.corruption import RandomDraw
from dragoman.data.padding import padded
from dragoman.data.pretraining import CorruptedRows
from dragoman.text.lines import MATCH
from dragoman.text.retrieval import FuzzyMatches, NoRetrieval
from dragoman.text.tokens.tokenizer import PAD, Tokenizer

_STREAM = 1
"""Tells these random numbers from those of noise, which have the same seed, step and row."""


def drop_matches(
    batch: PairBatch, rows: CorruptedRows, retrieval: NoRetrieval | FuzzyMatches, seed: int, tokenizer: Tokenizer
) -> PairBatch:
    """Return the batch with the matches of some rows removed; their tags, context and text stay."""
    if isinstance(retrieval, NoRetrieval) or not retrieval.without:
        return batch
    match, tags = tokenizer.mark(*MATCH), {tokenizer.tag(name) for name in tokenizer.tags}
    sources = [
        _without_matches(source[source != PAD], match, tags)
        if RandomDraw([seed, rows.step, row, _STREAM]).uniform(1)[0] < retrieval.without
        else source[source != PAD]
        for row, source in zip(rows.rows.tolist(), batch.source.numpy(), strict=True)
    ]
    return batch._replace(source=padded(sources))


def _without_matches(source: np.ndarray, match: int, tags: set[int]) -> np.ndarray:
    ends = np.flatnonzero(source == match)
    if not len(ends):
        return source
    begin = next(i for i, one in enumerate(source.tolist()) if one not in tags)
    return np.concatenate([source[:begin], source[ends[-1] + 1 :]])
