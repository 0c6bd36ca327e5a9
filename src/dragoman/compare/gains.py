"""Gain of raising the weight of a source, and the weights that follow: arithmetic alone.

The shares w_i of n sources sum to 1. Raising source i by a factor f multiplies its weight and normalises the sum to 1
again, so that log(w_i / w_j) grows by log f for every other source j.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dragoman.compare.statistics import Estimate, over_seeds, with_pooled

SourceShares = Mapping[str, float]

HALVINGS = 200
"""Bisections of the interval that the step length is searched in: more than a float can resolve."""


@dataclass(frozen=True)
class Gain(Estimate):
    """Decrease of the validation loss when a source's weight is raised, per unit of the weight's logarithm: the mean
    over seeds, and how well it is known."""

    @property
    def certain(self) -> bool:
        """True where 0 is outside the 95% interval (Student's t)."""
        low, high = self.interval()
        return low > 0 or high < 0


def gains_of(unchanged: Sequence[float], raised: Mapping[str, Sequence[float]], factor: float) -> dict[str, Gain]:
    """Return the gain of each source from validation losses with the unchanged weights and with its weight raised, each
    with the same two or more seeds in the same order: noise that the runs of a seed share cancels. The spread is pooled
    over sources, as in studies, since two or three seeds tell little of their own."""
    found = {}
    for name, losses in raised.items():
        fall = over_seeds([before - after for before, after in zip(unchanged, losses, strict=True)])
        fall, per = with_pooled(fall, [unchanged, *raised.values()]), math.log(factor)
        found[name] = Gain(fall.mean / per, fall.error / per, fall.freedom)
    return found


def raised(weights: SourceShares, name: str, factor: float) -> dict[str, float]:
    """Return ``weights`` with that of ``name`` multiplied, normalised to sum to 1."""
    return _shares({each: weight * (factor if each == name else 1) for each, weight in weights.items()})


def propose(weights: SourceShares, gains: Mapping[str, Gain], factor: float) -> dict[str, float]:
    """Return shares in proportion to w_i exp(eta gain_i), an exponentiated gradient step (Kivinen & Warmuth, 1997).

    eta is the largest value for which no share grows or shrinks by more than ``factor``. A gain that is not certain
    counts as 0: such sources keep their weights relative to one another, and change only by the normalisation.
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
