"""Scores of outputs against references, with bootstrap intervals. Each metric is one line of ``METRICS``.

A metric is a few counts of each sentence and a formula over their sums. Both come from sacreBLEU where it has the
metric, so the numbers are its own. The counts are made once; a bootstrap sample only adds them up again.

N sentences, Q counts of each.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from sacrebleu.metrics.base import Metric as SacrebleuMetric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from dragoman.errors import DataError

SAMPLES = 1000
"""Number of bootstrap samples of a test set for an interval."""
SEED = 12345


@dataclass(frozen=True)
class Score:
    """A metric's value on a test set, with its interval."""

    name: str
    value: float
    interval: tuple[float, float]
    """Range of 95% of the values when sentences are drawn again, with replacement."""
    higher_is_better: bool | None
    """None where it is not known, as of the numbers of a user's program."""
    signature: str
    """Settings needed to compare it with other people's: case, tokenization, smoothing, version."""
    digits: int = 1
    """Decimals that are worth printing."""


class Metric(ABC):
    """A metric: counts of each sentence, and a formula over their sums."""

    name: str
    higher_is_better: bool | None = True
    signature: str
    digits: int = 1

    @abstractmethod
    def counts(self, outputs: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        """Return counts (N, Q), a row for each sentence; outputs are texts unless the metric states otherwise.

        Metrics of ``METRICS`` also take several references of a sentence, as a list of texts.
        """

    @abstractmethod
    def value(self, counts: np.ndarray) -> float:
        """Return the score for counts (Q,) summed over sentences."""


class CountedScore(NamedTuple):
    """A metric with the counts that its score on a test set is made of."""

    metric: Metric
    counts: np.ndarray
    """Counts (N, Q), a row for each sentence, in the order of the test set."""


class Sacrebleu(Metric):
    """A metric as sacreBLEU computes it.

    ``references`` is the number of references of each sentence, for the signature; None where it varies.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], SacrebleuMetric],
        *,
        higher_is_better: bool = True,
        references: int | None = 1,
    ):
        self.name, self.higher_is_better = name, higher_is_better
        self.build, self.inner = build, build()
        self.inner.num_refs = -1 if references is None else references  # pyright: ignore[reportAttributeAccessIssue]
        self.signature = str(self.inner.get_signature())

    def with_references(self, references: int | None) -> "Sacrebleu":
        """Return the same metric for another number of references of each sentence; None where it varies."""
        return Sacrebleu(self.name, self.build, higher_is_better=bool(self.higher_is_better), references=references)

    def counts(self, outputs: Sequence[str], references: Sequence[str | Sequence[str]]) -> np.ndarray:
        streams = [*zip_longest(*map(_texts, references))] or [()]  # None where a sentence has fewer
        return np.array(self.build()._extract_corpus_statistics(list(outputs), streams), dtype=np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(self.inner._compute_score_from_stats(counts.tolist()).score)


class ExactMatch(Metric):
    """Fraction of outputs that equal a reference, to the character, in percent."""

    name, signature = "exact match", "case:mixed|space:kept"

    def counts(self, outputs: Sequence[str], references: Sequence[str | Sequence[str]]) -> np.ndarray:
        return np.array([[o in _texts(r), 1] for o, r in zip(outputs, references, strict=True)], dtype=np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / counts[1])


def _texts(reference: str | Sequence[str]) -> Sequence[str]:
    return (reference,) if isinstance(reference, str) else reference


METRICS: dict[str, Metric] = {
    "bleu": Sacrebleu("BLEU", partial(BLEU, force=True)),
    "chrf": Sacrebleu("chrF", CHRF),
    "chrf++": Sacrebleu("chrF++", partial(CHRF, word_order=2)),
    # The metric of older papers, by multi-bleu.perl -lc. They tokenized by scripts of each data set. Here it is 13a's
    # rules, or no tokenization for text that is tokenized already.
    "bleu_lowercase_tokenized": Sacrebleu(
        "BLEU, lowercased", partial(BLEU, lowercase=True, smooth_method="none", force=True)
    ),
    "bleu_lowercase_as_given": Sacrebleu(
        "BLEU, lowercased, tokens as given",
        partial(BLEU, lowercase=True, tokenize="none", smooth_method="none", force=True),
    ),
    # 13a knows no words where none stand between spaces. zh splits Chinese into characters, and char splits all text;
    # intl splits at the punctuation and symbols of all scripts.
    "bleu_zh": Sacrebleu("BLEU, Chinese", partial(BLEU, tokenize="zh", force=True)),
    "bleu_char": Sacrebleu("BLEU of characters", partial(BLEU, tokenize="char", force=True)),
    "bleu_intl": Sacrebleu("BLEU, international", partial(BLEU, tokenize="intl", force=True)),
    "ter": Sacrebleu("TER", TER, higher_is_better=False),
    "exact_match": ExactMatch(),
}


def score(metric: Metric, outputs: Sequence[str], references: Sequence[str]) -> Score:
    """Score outputs against references.
    Raises:
        DataError: not as many outputs as references, or none.
    """
    check_counts(outputs, references)
    return score_of(metric, metric.counts(outputs, references))


def score_of(metric: Metric, counts: np.ndarray) -> Score:
    """Return the score for the counts (N, Q) of all sentences."""
    drawn = [metric.value(sample @ counts) for sample in samples(len(counts))]
    value = metric.value(counts.sum(axis=0))
    return Score(metric.name, value, _middle(drawn), metric.higher_is_better, metric.signature, metric.digits)


def _middle(drawn: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the range of the middle 95% of values; NaN at an end that infinite values leave open."""
    with np.errstate(invalid="ignore"):
        low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def counted_by(
    metrics: Mapping[str, Metric], outputs: Sequence[Any], references: Sequence[Any]
) -> dict[str, CountedScore]:
    """Return the counts of each metric by its name, for outputs that all of them read."""
    return {name: CountedScore(metric, metric.counts(outputs, references)) for name, metric in metrics.items()}


def scores_of(counted: Mapping[str, CountedScore]) -> dict[str, Score]:
    """Return the score of each metric by its name."""
    return {name: score_of(*one) for name, one in counted.items()}


@dataclass(frozen=True)
class Comparison:
    """The difference of two systems on one test set."""

    name: str
    a: float
    b: float
    interval: tuple[float, float]
    """Range of 95% of the differences ``b - a`` when sentences are drawn again, the same ones for both."""
    p: float
    """Probability of a difference as large by chance alone, in either direction (Koehn 2004); NaN where a score is
    infinite on some of the test sets drawn."""
    digits: int = 1
    """Decimals that are worth printing."""


def compare(metric: Metric, a: Sequence[str], b: Sequence[str], references: Sequence[str]) -> Comparison:
    """Compare outputs ``b`` with ``a`` by a paired bootstrap.

    Raises:
        DataError: not as many outputs as references, or fewer than two.
    """
    check_counts(a, references)
    check_counts(b, references)
    return compare_counts(metric, metric.counts(a, references), metric.counts(b, references))


def compare_counts(metric: Metric, one: np.ndarray, other: np.ndarray) -> Comparison:
    """Same as ``compare``, for counts (N, Q) of two systems on the same sentences.

    A few sentences cannot show much: of equal systems, n sentences whose counts differ would all favour the same one
    with probability 2 / 2^n, and p is no smaller.

    Raises:
        DataError: a single sentence, which leaves nothing to draw.
    """
    if len(one) < 2:
        raise DataError("--against: a paired test draws sentences or documents, and this test set is a single one")
    values = metric.value(one.sum(axis=0)), metric.value(other.sum(axis=0))
    drawn = np.array([metric.value(sample @ other) - metric.value(sample @ one) for sample in samples(len(one))])
    p = math.nan
    if np.isfinite(drawn).all():
        as_large = np.sum(np.abs(drawn - drawn.mean()) >= abs(values[1] - values[0]))
        differing = int(np.any(one != other, axis=1).sum())
        p = max(float((as_large + 1) / (len(drawn) + 1)), min(1.0, 2.0 ** (1 - differing)))
    return Comparison(metric.name, *values, _middle(drawn), p, metric.digits)


def samples(sentences: int) -> Iterator[np.ndarray]:
    """Yield the number of times each sentence is drawn (N,), for ``SAMPLES`` test sets; the same ones at each call."""
    random = np.random.default_rng(SEED)
    for _ in range(SAMPLES):
        yield np.bincount(random.integers(sentences, size=sentences), minlength=sentences).astype(np.float64)


def check_counts(outputs: Sequence[str], references: Sequence[str]) -> None:
    """Raise DataError unless there are as many outputs as references, and some."""
    if len(outputs) != len(references):
        raise DataError(f"{len(outputs)} outputs for {len(references)} references: score the same lines, one for one")
    if not outputs:
        raise DataError("nothing to score: no outputs and no references")
