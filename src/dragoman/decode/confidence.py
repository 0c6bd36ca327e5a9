"""How sure to be of a translation: a logistic regression on what the search knows of it.

F features.
"""

import math

import numpy as np
from jaxtyping import Float

from dragoman.config import config
from dragoman.decode.translation import Candidate

FEATURES = ("mean log-probability", "lowest log-probability", "log of the length", "unequal lengths", "cut")


def features(source: str, candidate: Candidate) -> Float[np.ndarray, " F"]:
    """What may tell a good translation from a bad one, each of about the same size."""
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
    """The probability that a translation is good, as the sentences it was fitted on are counted; see
    ``evaluate.calibrate``."""

    weights: tuple[float, ...]
    """One for each of ``FEATURES``."""
    bias: float
    good: float
    """chrF from which a sentence counts as good."""
    sentences: int
    """That it was fitted on."""

    def of(self, source: str, candidate: Candidate) -> float:
        logit = self.bias + float(features(source, candidate) @ np.array(self.weights))
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
