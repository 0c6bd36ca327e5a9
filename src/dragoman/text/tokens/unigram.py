"""Training of a unigram vocabulary (Kudo 2018): the pieces that maximise the likelihood of the best segmentations of
the words.

From all frequent substrings, the pieces whose loss hurts least are removed round by round, and the rest is counted
again in the best segmentations (hard EM, with the library's Viterbi search). Counts are integers and ties are broken by
spelling, so the same words give the same pieces to the last bit; the trainer in `tokenizers` gives others on every run.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import tokenizers
from tokenizers import models

LONGEST = 16
"""Largest number of symbols in a piece."""
WORDS = 200_000
"""Number of words, the most frequent, that candidates are taken from."""

Scores = dict[str, float]
"""Log probability of each piece."""


def train_unigram(words: Mapping[str, int], size: int, alphabet: Sequence[str]) -> list[tuple[str, float]]:
    """Return the ``size`` best pieces and their scores for words with these counts; every symbol of the alphabet is
    included.

    Fewer pieces are returned where the words do not have as many frequent substrings.
    """
    ranked = sorted(words.items(), key=lambda word: (-word[1], word[0]))
    scores = _candidates(ranked[:WORDS], alphabet, 8 * size)
    while True:
        scores, counts = _recount(scores, ranked)
        if len(scores) <= size:
            return sorted(scores.items(), key=lambda piece: (-piece[1], piece[0]))
        used = sum(map(bool, counts.values()))
        scores = _prune(scores, counts, alphabet, max(size, min(used, len(scores) * 3 // 4)))


def _candidates(ranked: Sequence[tuple[str, int]], alphabet: Sequence[str], most: int) -> Scores:
    """Return the alphabet and the substrings that cover most of the text; their scores only start the first round."""
    covered = Counter[str]()
    for word, count in ranked:
        for begin in range(len(word)):
            for end in range(begin + 2, min(begin + LONGEST, len(word)) + 1):
                covered[word[begin:end]] += count
    frequent = [(count * len(piece), piece) for piece, count in covered.items() if count > 1]
    frequent.sort(key=lambda row: (-row[0], row[1]))
    starting = dict.fromkeys(alphabet, 1) | {piece: cover for cover, piece in frequent[:most]}
    total = sum(starting.values())
    return {piece: math.log(cover / total) for piece, cover in starting.items()}


def _recount(scores: Scores, ranked: Sequence[tuple[str, int]]) -> tuple[Scores, Counter[str]]:
    """Return scores and counts from the best segmentation of every word by the present scores."""
    pieces = list(scores)
    segmenter = tokenizers.Tokenizer(models.Unigram(list(scores.items()), unk_id=None))
    segmented = segmenter.encode_batch_fast([word for word, _ in ranked], add_special_tokens=False)
    lengths = [len(segments.ids) for segments in segmented]
    ids = np.fromiter((i for segments in segmented for i in segments.ids), np.int64, sum(lengths))
    times = np.repeat([count for _, count in ranked], lengths)
    found = np.bincount(ids, weights=times, minlength=len(pieces))
    total = found.sum()
    counts = Counter({piece: int(n) for piece, n in zip(pieces, found, strict=True)})
    return {piece: math.log(max(n, 0.5) / total) for piece, n in counts.items()}, counts


def _prune(scores: Scores, counts: Counter[str], alphabet: Sequence[str], size: int) -> Scores:
    """Keep the alphabet and the pieces without which the likelihood would fall most, ``size`` in all."""
    kept = set(alphabet)
    losses = []
    for piece in scores.keys() - kept:
        loss = counts[piece] * (scores[piece] - _without(piece, scores)) if counts[piece] else 0.0
        losses.append((-loss, piece))
    kept.update(piece for _, piece in sorted(losses)[: size - len(kept)])
    return {piece: score for piece, score in scores.items() if piece in kept}


def _without(piece: str, scores: Scores) -> float:
    """Return the best score of the piece's symbols in segmentations other than the piece itself."""
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for begin in range(1 if end == len(piece) else 0, end):
            if (score := scores.get(piece[begin:end])) is not None:
                best[end] = max(best[end], best[begin] + score)
    return best[-1]
