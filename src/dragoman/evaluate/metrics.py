"""Scores of outputs against references, with bootstrap intervals. Each metric is one line of ``METRICS``.

A metric is a few counts of each sentence and a formula over their sums. Both come from sacreBLEU where it has them, so
the numbers are its own; the counts are taken once, and drawing a thousand test sets only adds them up anew.

N sentences, Q counts of each.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sacrebleu.metrics.base import Metric as SacrebleuMetric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from dragoman.errors import DataError

SAMPLES = 1000
"""Test sets drawn, with replacement, for an interval."""
SEED = 12345


@dataclass(frozen=True)
class Score:
    name: str
    value: float
    interval: tuple[float, float]
    """Where 95% of the values lie when sentences are drawn anew, with replacement."""
    higher_is_better: bool
    signature: str
    """What a reader needs to compare it with other people's: case, tokenization, smoothing, version."""


class Metric(ABC):
    name: str
    higher_is_better: bool = True
    signature: str

    @abstractmethod
    def counts(self, outputs: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        """(N, Q) counts, one row a sentence; of texts, unless the metric says otherwise."""

    @abstractmethod
    def value(self, counts: np.ndarray) -> float:
        """The score, of counts (Q,) that are summed over sentences."""


class Sacrebleu(Metric):
    """A metric as sacreBLEU computes it."""

    def __init__(self, name: str, build: Callable[[], SacrebleuMetric], *, higher_is_better: bool = True):
        self.name, self.higher_is_better = name, higher_is_better
        self.build, self.inner = build, build()
        self.inner.num_refs = 1  # pyright: ignore[reportAttributeAccessIssue]
        self.signature = str(self.inner.get_signature())

    def counts(self, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return np.array(self.build()._extract_corpus_statistics(list(outputs), [list(references)]), dtype=np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(self.inner._compute_score_from_stats(counts.tolist()).score)


class ExactMatch(Metric):
    """Share of outputs that are the reference, to the character, in percent."""

    name, signature = "exact match", "case:mixed|space:kept"

    def counts(self, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return np.array([[o == r, 1] for o, r in zip(outputs, references, strict=True)], dtype=np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / counts[1])


METRICS: dict[str, Metric] = {
    "bleu": Sacrebleu("BLEU", lambda: BLEU(force=True)),
    "chrf": Sacrebleu("chrF", CHRF),
    # What multi-bleu.perl -lc gave older papers. Theirs was tokenized by scripts of each data set; here by 13a's rules,
    # or not at all, for text that comes tokenized.
    "bleu_lowercase_tokenized": Sacrebleu(
        "BLEU, lowercased", lambda: BLEU(lowercase=True, smooth_method="none", force=True)
    ),
    "bleu_lowercase_as_given": Sacrebleu(
        "BLEU, lowercased, tokens as given",
        lambda: BLEU(lowercase=True, tokenize="none", smooth_method="none", force=True),
    ),
    "ter": Sacrebleu("TER", TER, higher_is_better=False),
    "exact_match": ExactMatch(),
}


def score(metric: Metric, outputs: Sequence[str], references: Sequence[str]) -> Score:
    """
    Raises:
        DataError: not as many outputs as references, or none.
    """
    check_counts(outputs, references)
    return score_of(metric, metric.counts(outputs, references))


def score_of(metric: Metric, counts: np.ndarray) -> Score:
    """The score of the sentences that have these counts (N, Q)."""
    drawn = [metric.value(sample @ counts) for sample in samples(len(counts))]
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = metric.value(counts.sum(axis=0))
    return Score(metric.name, value, (float(low), float(high)), metric.higher_is_better, metric.signature)


@dataclass(frozen=True)
class Comparison:
    """Two systems on one test set."""

    name: str
    a: float
    b: float
    interval: tuple[float, float]
    """Where 95% of the differences ``b - a`` lie when sentences are drawn anew, the same ones for both."""
    p: float
    """How often chance alone would make a difference as large, either way (Koehn 2004)."""


def compare(metric: Metric, a: Sequence[str], b: Sequence[str], references: Sequence[str]) -> Comparison:
    """Whether outputs ``b`` score otherwise than ``a`` by more than chance: paired bootstrap.

    Raises:
        DataError: not as many outputs as references, or none.
    """
    check_counts(a, references)
    check_counts(b, references)
    return compare_counts(metric, metric.counts(a, references), metric.counts(b, references))


def compare_counts(metric: Metric, one: np.ndarray, other: np.ndarray) -> Comparison:
    """Same as ``compare``, for counts (N, Q) of two systems on the same sentences."""
    values = metric.value(one.sum(axis=0)), metric.value(other.sum(axis=0))
    drawn = np.array([metric.value(sample @ other) - metric.value(sample @ one) for sample in samples(len(one))])
    low, high = np.percentile(drawn, [2.5, 97.5])
    as_large = np.sum(np.abs(drawn - drawn.mean()) >= abs(values[1] - values[0]))
    return Comparison(metric.name, *values, (float(low), float(high)), float((as_large + 1) / (len(drawn) + 1)))


def samples(sentences: int) -> Iterator[np.ndarray]:
    """How often each sentence (N,) is drawn, for each of ``SAMPLES`` test sets; the same ones at each call."""
    random = np.random.default_rng(SEED)
    for _ in range(SAMPLES):
        yield np.bincount(random.integers(sentences, size=sentences), minlength=sentences).astype(np.float64)


def check_counts(outputs: Sequence[str], references: Sequence[str]) -> None:
    if len(outputs) != len(references):
        raise DataError(f"{len(outputs)} outputs for {len(references)} references: score the same lines, one for one")
    if not outputs:
        raise DataError("nothing to score: no outputs and no references")
