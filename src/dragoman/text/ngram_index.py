"""Inverted indices of texts: by character n-grams, for sentences that are alike, and by words, for passages about a
question.

By n-grams, the score is the cosine of binary vectors weighted by inverse document frequency. Scores of a query do not
depend on other queries, so the same candidates come whatever else is asked for.

N texts.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

LENGTH = 3
"""Characters of an n-gram. Three find inflected forms; longer ones miss short words."""
COMMON, FEW = 0.1, 1000
"""N-grams in more than this fraction of the texts, where these are more than ``FEW``, are ignored: they tell nothing
apart and cost most."""


class NgramIndex:
    """Index of N texts."""

    def __init__(self, texts: Sequence[str]):
        self.size = len(texts)
        counts: Counter[str] = Counter()
        rows = [sorted(ngrams(text)) for text in texts]
        for row in rows:
            counts.update(row)
        most = COMMON * self.size if self.size > FEW else self.size
        self.ids = {gram: i for i, gram in enumerate(sorted(g for g, count in counts.items() if count <= most))}
        frequency = np.array([counts[gram] for gram in self.ids], np.float64)
        self.weights: Float[np.ndarray, " V"] = np.log1p(self.size / np.maximum(frequency, 1)) ** 2
        flat = np.fromiter((self.ids[g] for row in rows for g in row if g in self.ids), np.int64)
        lengths = [sum(g in self.ids for g in row) for row in rows]
        owner = np.repeat(np.arange(self.size), lengths)
        self.norms = np.sqrt(np.maximum(np.bincount(owner, self.weights[flat], minlength=self.size), 1e-12))
        self.rows = owner[np.argsort(flat, kind="stable")].astype(np.int32)
        self.starts = np.concatenate([[0], np.cumsum(frequency.astype(np.int64))])

    def candidates(self, text: str, count: int) -> Int[np.ndarray, " _"]:
        """Return at most ``count`` texts by index that share an n-gram with ``text``, best first, earlier ones first
        among equals."""
        known = sorted(self.ids[gram] for gram in ngrams(text) if gram in self.ids)
        if not known:
            return np.empty(0, np.int64)
        postings = [self.rows[self.starts[i] : self.starts[i + 1]] for i in known]
        weights = np.repeat(self.weights[known], [len(rows) for rows in postings])
        scores = np.bincount(np.concatenate(postings), weights, minlength=self.size) / self.norms
        found = np.flatnonzero(scores)
        if len(found) > count:
            least = np.partition(scores[found], len(found) - count)[len(found) - count]
            found = found[
                scores[found] >= least
            ]  # with all that tie, so that their order decides and not the library's
        return found[np.lexsort((found, -scores[found]))][:count]


def ngrams(text: str) -> set[str]:
    """Return the character n-grams of a text, whatever its case; its ends count as spaces."""
    padded = f" {text.casefold()} "
    return {padded[i : i + LENGTH] for i in range(max(1, len(padded) - LENGTH + 1))}


class WordIndex:
    """Index of N passages by BM25 (Robertson & Zaragoza 2009, section 3.1), with the idf of Lucene, never negative."""

    def __init__(self, passages: Iterable[Sequence[str]], k1: float = 1.2, b: float = 0.75):
        """
        Args:
            passages: the words of each.
            k1: saturation of a word's count.
            b: strength of the correction for length; 0 for none.
        """
        self.counts = [Counter(words) for words in passages]
        frequency: Counter[str] = Counter()
        for counts in self.counts:
            frequency.update(counts.keys())
        N = len(self.counts)
        mean = sum(c.total() for c in self.counts) / max(1, N) or 1.0
        self.postings: dict[str, list[tuple[int, float]]] = {}
        for row, counts in enumerate(self.counts):
            norm = k1 * (1 - b + b * counts.total() / mean)
            for word, count in counts.items():
                idf = math.log(1 + (N - frequency[word] + 0.5) / (frequency[word] + 0.5))
                self.postings.setdefault(word, []).append((row, idf * count * (k1 + 1) / (count + norm)))

    def best(self, words: Iterable[str], count: int) -> list[tuple[int, float]]:
        """Return at most ``count`` passages that share a word with the query, by index, each with its score, best
        first."""
        scores: dict[int, float] = {}
        for word in dict.fromkeys(words):
            for row, score in self.postings.get(word, ()):
                scores[row] = scores.get(row, 0.0) + score
        return heapq.nsmallest(count, scores.items(), key=lambda item: (-item[1], item[0]))
