"""Calibration: fit a confidence to translations whose references are known, and select the heads that align words.

N sentences, F features, M bins.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dragoman.decode.alignment import Aligner, AlignmentHeads, anchors, error_rate, learn
from dragoman.decode.calibration import Calibration
from dragoman.decode.confidence import Confidence, features
from dragoman.decode.defaults import BEAM
from dragoman.decode.request import request_for
from dragoman.decode.search.attention_taps import attention_taps
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translation import Translation
from dragoman.decode.translator import Progress, Translator, search_for_beam
from dragoman.errors import DataError
from dragoman.evaluate.metrics import METRICS
from dragoman.evaluate.risk_coverage import risk_coverage
from dragoman.text.cleaning.clean import normalise_pair
from dragoman.text.corpus import source_rows
from dragoman.text.lines import Pair, Sourced
from dragoman.text.tokens.tokenizer import EOS

LEAST = 50
"""Fewest sentences to learn from."""


SHARES = (0.1, 0.2, 0.3)
"""Parts of the sentences for which the threshold is told that sends them to review."""
DIGITS = 4
"""Decimals of a threshold, as many as a translation's confidence is printed with."""


@dataclass(frozen=True)
class ReviewShare:
    """Threshold of confidence that sends a share of the sentences to review."""

    share: float
    """Part of the sentences below it."""
    flag_below: float
    """Threshold, with ``DIGITS`` decimals."""
    errors: float
    """Fraction of the others that is not good."""

    def __str__(self) -> str:
        """Return one line with the option that uses the threshold."""
        sent = f"--flag-below {self.flag_below:.{DIGITS}f} sends {self.share:.0%} to review"
        return f"{sent}; of the rest {self.errors:.1%} are not good"


@dataclass(frozen=True)
class Calibrated:
    """Outcome of a calibration: what was learnt, and how good it is."""

    calibration: Calibration
    good: float
    """Fraction of the test sentences that are good."""
    error_before: float
    """Expected calibration error on the test sentences of the mean token probability."""
    error_after: float
    """Expected calibration error on the test sentences of the calibrated confidence."""
    review: tuple[ReviewShare, ...]
    """Errors left on the test sentences when the least certain ones go to review."""
    area: float
    """Area under their risk-coverage curve; of random certainty it is the fraction that is not good."""
    alignment_error: float | None
    """Alignment error rate of the chosen heads on words that both sides have in common, in pairs that they were not
    learnt on; None where there are too few."""


def calibrate(
    translator: Translator,
    pairs: Sequence[Pair | Sourced],
    test: Sequence[Pair | Sourced] = (),
    *,
    good: float = 70.0,
    beam: int = BEAM,
    progress: Progress | None = None,
) -> Calibrated:
    """Learn from ``pairs``, which the model was not trained on, and measure on ``test``.

    Args:
        good: chrF from which a sentence counts as good.
        test: other pairs; without them the errors are measured on the odd rows after a fit on the even ones.

    Raises:
        DataError: fewer than ``LEAST`` pairs.
    """
    if len(pairs) < LEAST:
        raise DataError(f"{len(pairs)} pairs are too few to calibrate on: {LEAST} at least")
    search = search_for_beam(beam)
    translations, right = _translate_and_judge(translator, pairs, good, search, progress)
    if test:
        new, new_right = _translate_and_judge(translator, test, good, search, progress)
        confidence = fit_confidence(translations, right, good)
    else:
        confidence, new, new_right = (
            fit_confidence(translations[::2], right[::2], good),
            translations[1::2],
            right[1::2],
        )
    plain = np.array([t.candidates[0].mean_probability for t in new])
    sure = np.array([confidence.of(t.source, t.candidates[0]) for t in new])
    heads, error = _heads(translator, pairs)
    return Calibrated(
        Calibration(confidence=fit_confidence(translations, right, good), heads=heads),
        float(new_right.mean()),
        calibration_error(plain, new_right),
        calibration_error(sure, new_right),
        tuple(review_share(sure, new_right, share) for share in SHARES),
        risk_coverage(sure, 1.0 - new_right).area,
        error,
    )


def _translate_and_judge(
    translator: Translator,
    pairs: Sequence[Pair | Sourced],
    good: float,
    search: SearchConfig,
    progress: Progress | None,
) -> tuple[list[Translation], Bool[np.ndarray, " N"]]:
    """Return translations, and which of them are good."""
    found = translator.translate(list(map(request_for, pairs)), search=search, progress=progress)
    metric = METRICS["chrf"]
    counts = metric.counts([t.text for t in found], [pair.target for pair in pairs])
    return found, np.array([metric.value(row) >= good for row in counts])


def fit_confidence(found: Sequence[Translation], right: Bool[np.ndarray, " N"], good: float) -> Confidence:
    """Fit a confidence to translations, of which is known which are good."""
    weights = fit_logistic(np.array([features(t.source, t.candidates[0]) for t in found]), right)
    return Confidence(weights=tuple(weights[:-1].tolist()), bias=float(weights[-1]), good=good, sentences=len(found))


def fit_logistic(x: Float[np.ndarray, "N F"], right: Bool[np.ndarray, " N"]) -> Float[np.ndarray, " weights"]:
    """Fit a logistic regression by Newton's method, with a normal prior of variance 10 on its weights.

    Return these weights, and the bias after them.
    """
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    weights, prior = np.zeros(x.shape[1]), np.diag([0.1] * (x.shape[1] - 1) + [1e-4])
    for _ in range(50):
        p = 1 / (1 + np.exp(-(x @ weights)))
        slope = x.T @ (right - p) - prior @ weights
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + prior, slope)
        weights = weights + step / max(1.0, np.abs(step).max() / 2)
        if np.abs(step).max() < 1e-9:
            break
    return weights


def calibration_error(sure: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], bins: int = 10) -> float:
    """Return the expected calibration error (Naeini et al. 2015).

    It is the mean difference between confidence and success, in bins of equally many sentences ordered by confidence.
    """
    parts = np.array_split(np.argsort(sure, kind="stable"), bins)
    return float(
        sum(abs(sure[part].mean() - right[part].mean()) * len(part) for part in parts if len(part)) / len(sure)
    )


def review_share(sure: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], share: float) -> ReviewShare:
    """Return the confidence that at most this share of the sentences is below, and the errors among the others.

    It is rounded down, and the share in the result is that below the rounded number.
    """
    flag_below = math.floor(float(np.sort(sure)[round(share * len(sure))]) * 10**DIGITS) / 10**DIGITS
    kept = sure >= flag_below
    return ReviewShare(float(1 - kept.mean()), flag_below, float(1 - right[kept].mean()))


def _heads(translator: Translator, pairs: Sequence[Pair | Sourced]) -> tuple[AlignmentHeads, float | None]:
    """Return the heads that best link the words that both sides have in common, and their error rate; no error
    rate where nothing can be linked.

    They are learnt on every other pair. They are used if on the rest they beat the default heads by a standard error.
    """
    if not attention_taps(translator.model):
        return AlignmentHeads(), None
    tidy = [normalise_pair(pair) for pair in pairs]
    known = [(pair, gold) for pair in tidy if (gold := anchors(pair.source, pair.target))]
    if sum(len(gold) for _, gold in known) < LEAST:
        return AlignmentHeads(), None
    sides = translator.source_tokenizer, translator.target_tokenizer
    sources = source_rows(sides[0], [pair for pair, _ in known])
    ids = [(source, [*sides[1].encode(pair.target), EOS]) for source, (pair, _) in zip(sources, known, strict=True)]
    aligner, gold = Aligner(translator.model, *sides), [gold for _, gold in known]
    learnt, _ = learn(aligner, ids[::2], gold[::2])
    aligner.heads = AlignmentHeads()
    before = error_rate(aligner.align(ids[1::2]), gold[1::2])
    aligner.heads = learnt
    after = error_rate(aligner.align(ids[1::2]), gold[1::2])
    standard_error = (before * (1 - before) / max(1, sum(map(len, gold[1::2])))) ** 0.5
    return (learnt, after) if after < before - standard_error else (AlignmentHeads(), before)
