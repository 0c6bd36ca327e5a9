"""Learning rate as a function of the step: one small class per schedule, their union at the end.

``rate(step, total)`` takes the number of the step about to be made, counted from 1, and the length of the whole run.
Where steps do not all spend as much of the budget, as in a budget of minutes, ``total`` is the length at which ``step``
corresponds to the fraction of it that is spent (``budget.Course.horizon``). In a budget of minutes it is None for the
first few steps; nothing declines until then.
"""

import math
from typing import Annotated

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dragoman.config import Fraction, OneOf, config


@config
class Noam:
    """Attention Is All You Need, equation 3: factor d^-1/2 min(step^-1/2, step warmup^-3/2)."""

    warmup: PositiveInt = 4000
    """Steps of linear increase."""
    factor: PositiveFloat = 1.0
    dim: PositiveInt | None = None
    """Model width d; None for the width of the model that is trained."""

    def rate(self, step: int, total: float | None) -> float:
        assert self.dim is not None, "filled in when the run is resolved"
        return self.factor * self.dim**-0.5 * min(step**-0.5, step * self.warmup**-1.5)


@config
class InverseSquareRoot:
    """Linear increase to ``peak``, then falling with the square root of the step; Noam with the peak stated."""

    peak: PositiveFloat
    """Highest learning rate, reached after the warm-up."""
    warmup: NonNegativeInt = 4000
    """Steps of linear increase."""

    def rate(self, step: int, total: float | None) -> float:
        return (
            self.peak * min(step / self.warmup, (self.warmup / step) ** 0.5) if self.warmup else self.peak * step**-0.5
        )


@config
class Cosine:
    """Linear increase to ``peak``, then half a cosine wave down to ``floor`` at the end of the run."""

    peak: PositiveFloat
    """Highest learning rate, reached after the warm-up."""
    warmup: NonNegativeInt = 1000
    """Steps of linear increase."""
    floor: Fraction = 0.0
    """Learning rate at the end, as a fraction of the peak."""

    def rate(self, step: int, total: float | None) -> float:
        done = _completed(step, self.warmup, total)
        return (
            self.peak * _warm(step, self.warmup) * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2)
        )


@config
class WarmupStableDecay:
    """Linear increase to ``peak``, which holds until a linear decline to ``floor`` in the last ``decay`` of the run."""

    peak: PositiveFloat
    """Learning rate between warm-up and decline."""
    warmup: NonNegativeInt = 1000
    """Steps of linear increase."""
    decay: Fraction = 0.2
    """Fraction of the run that the decline takes."""
    floor: Fraction = 0.0
    """Learning rate at the end, as a fraction of the peak."""

    def rate(self, step: int, total: float | None) -> float:
        done = _completed(step, round(total * (1 - self.decay)), total) if total else 0.0
        return self.peak * _warm(step, self.warmup) * (1 - (1 - self.floor) * done)


@config
class Constant:
    """Linear increase to ``peak``, and no decline."""

    peak: PositiveFloat
    """Learning rate after the warm-up."""
    warmup: NonNegativeInt = 0
    """Steps of linear increase."""

    def rate(self, step: int, total: float | None) -> float:
        return self.peak * _warm(step, self.warmup)


def _warm(step: int, warmup: NonNegativeInt) -> float:
    return min(1.0, step / warmup) if warmup else 1.0


def _completed(step: int, start: int, total: float | None) -> float:
    """Return how far ``step`` is from ``start`` to ``total``, from 0 to 1; 0 while ``total`` is not known."""
    return min(max((step - start) / max(total - start, 1), 0.0), 1.0) if total else 0.0


Schedule = Annotated[Noam | InverseSquareRoot | Cosine | WarmupStableDecay | Constant, OneOf()]
