"""What raising the weight of a source is worth, and the weights that follow: arithmetic alone.

The shares w_i of n sources add up to 1. To raise source i by a factor f is to multiply its weight and to let all add up
to 1 again, so that log(w_i / w_j) grows by log f for every other source j.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

SourceShares = Mapping[str, float]

CERTAIN = 2.0
"""Standard errors from 0 beyond which a gain counts."""
HALVINGS = 200
"""Of the interval that the length of the step is looked for in: more than a float can tell apart."""


@dataclass(frozen=True)
class Gain:
    """What the validation loss falls by when a source's weight is raised, per unit of the weight's logarithm."""

    mean: float
    """Over seeds."""
    error: float
    """Standard error of the mean."""

    @property
    def certain(self) -> bool:
        return abs(self.mean) > CERTAIN * self.error


def gain(unchanged: Sequence[float], raised: Sequence[float], factor: float) -> Gain:
    """Validation losses with the weights as they are and with one of them raised, each with the same two or more
    seeds in the same order: what the seeds have in common cancels."""
    each = [(before - after) / math.log(factor) for before, after in zip(unchanged, raised, strict=True)]
    return Gain(fmean(each), stdev(each) / math.sqrt(len(each)))


def raised(weights: SourceShares, name: str, factor: float) -> dict[str, float]:
    """``weights`` with that of ``name`` multiplied, as shares."""
    return _shares({each: weight * (factor if each == name else 1) for each, weight in weights.items()})


def propose(weights: SourceShares, gains: Mapping[str, Gain], factor: float) -> dict[str, float]:
    """Shares in proportion to w_i exp(eta gain_i), an exponentiated gradient step (Kivinen & Warmuth, 1997).

    eta is the largest with which no share grows or shrinks by more than ``factor``. A gain that is not certain counts
    as 0: such sources keep their weights to one another, and change only as all do when they are made to add up to 1.
    """
    slopes = {name: gains[name].mean if gains[name].certain else 0.0 for name in weights}
    largest = max(map(abs, slopes.values()))
    if max(slopes.values()) == min(slopes.values()) or not largest:
        return _shares(weights)
    slopes = {name: slope / largest for name, slope in slopes.items()}
    before = _shares(weights)

    def stepped(eta: float) -> dict[str, float]:
        highest = max(slopes.values())
        return _shares({name: share * math.exp(eta * (slopes[name] - highest)) for name, share in before.items()})

    def too_far(eta: float) -> bool:
        after = stepped(eta)
        return any(not before[n] / factor <= after[n] <= before[n] * factor for n in before)

    low, high = 0.0, math.log(factor)  # the step grows with eta: with the weight that gains most or least
    while not too_far(high):
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if too_far(middle) else (middle, high)
    return stepped(low) if low else before


def _shares(weights: SourceShares) -> dict[str, float]:
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
