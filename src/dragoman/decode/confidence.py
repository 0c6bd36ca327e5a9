"""Confidence in a translation: a logistic regression on features that the search provides.

F features.
"""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from dragoman.config import config
from dragoman.decode.translation import Candidate

FEATURES = ("mean log-probability", "lowest log-probability", "log of the length", "unequal lengths", "truncated")


def features(source: str, candidate: Candidate) -> Float[np.ndarray, " F"]:
    """Return the features that separate good translations from bad ones, scaled to about the same size."""
    tokens = max(1, len(candidate.tokens))
    return np.array(
        [
            candidate.log_prob / tokens,
            min(candidate.token_log_probs, default=0.0) / 4,
            math.log(tokens) / 4,
            abs(math.log((len(candidate.text) + 5) / (len(source) + 5))),
            float(candidate.truncated),
        ]
    )


@config
class Confidence:
    """The probability that a translation is good, estimated on the sentences it was fitted on.

    ``evaluate.calibrate`` fits it.
    """

    weights: tuple[float, ...]
    """Weights, one for each of ``FEATURES``."""
    bias: float
    good: float
    """chrF from which a sentence counts as good."""
    sentences: int
    """Number of sentences that it was fitted on."""

    def of(self, source: str, candidate: Candidate) -> float:
        """Return the confidence in a candidate, from 0 to 1."""
        logit = self.bias + float(features(source, candidate) @ np.array(self.weights))
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0

    def judged(self, source: str, candidate: Candidate) -> Candidate:
        """Return a candidate with the confidence in it."""
        return replace(candidate, confidence=self.of(source, candidate))
