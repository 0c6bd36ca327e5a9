"""Length of a run: a number of steps, of passes over the text, or of minutes."""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import PositiveFloat, PositiveInt

from dragoman.config import OneOf, config

ROUNDING = 1e-3
"""Fraction of a step that sums of passes may be wrong by."""


@dataclass(frozen=True)
class Course:
    """How a budget is spent step by step, where not all steps spend as much of it."""

    step: int
    """Step after which ``fraction`` of the budget was spent."""
    fraction: float
    total: int
    """Steps of the whole run, if all from then on spend as much as one another."""

    def spent(self, step: int) -> float:
        """Return the fraction of the budget that is spent after ``step``: 1 after the last one."""
        if step >= self.total:
            return 1.0
        if step < self.step:
            return self.fraction * step / self.step
        return 1.0 - (1.0 - self.fraction) * (self.total - step) / (self.total - self.step)

    def horizon(self, step: int) -> float:
        """Return the length of a run of even steps that would have spent as much after ``step``.

        A schedule that ends with the run declines by this with what is spent, whatever the steps before took.
        """
        return step / self.spent(step)


@config
class Steps:
    """Train for a fixed number of optimizer steps."""

    steps: PositiveInt
    """Optimizer steps."""

    def total(self, steps_per_epoch: int, step: int = 0, epochs: float = 0.0) -> int | None:
        """Return the steps in the budget of a run that has made ``step`` of them in ``epochs`` passes; None where only
        their speed can tell."""
        return self.steps

    def course(self, steps_per_epoch: int, step: int, epochs: float) -> Course | None:
        """Return how the run of ``total`` spends its budget; None where all its steps spend as much."""
        return None

    @property
    def seconds(self) -> float | None:
        """Return the time to learn in seconds; None where the budget does not limit time."""
        return None

    def longer(self, *, steps: int, epochs: float, seconds: float) -> str:
        """Return the setting for a longer budget, to be pasted into a command: twice as large, or twice what a run has
        spent where that is more."""
        return f"train.budget.steps={_twice(self.steps, steps)}"


@config
class Epochs:
    """Train for a number of passes over the training text, which may be fractional."""

    epochs: PositiveFloat
    """Passes over the training text."""

    def total(self, steps_per_epoch: int, step: int = 0, epochs: float = 0.0) -> int | None:
        left = (self.epochs - epochs) * steps_per_epoch
        return step + max(0, math.ceil(left - ROUNDING))

    def course(self, steps_per_epoch: int, step: int, epochs: float) -> Course | None:
        total = self.total(steps_per_epoch, step, epochs)
        if total is None or total == self.total(steps_per_epoch):  # as if all batches had been of this size
            return None
        return Course(step, min(1.0, epochs / self.epochs), total)

    @property
    def seconds(self) -> float | None:
        return None

    def longer(self, *, steps: int, epochs: float, seconds: float) -> str:
        return f"train.budget.epochs={_twice(self.epochs, epochs):g}"


@config
class Minutes:
    """Train for a time. ``forecast.py`` decides the number of steps while the run goes on."""

    minutes: PositiveFloat
    """Time spent learning; preparing, validating, saving and suspension come on top. The schedule follows the time, so
    two such runs differ in length; a resumed one repeats its steps exactly. Give steps where two runs must be equal."""

    def total(self, steps_per_epoch: int, step: int = 0, epochs: float = 0.0) -> int | None:
        return None

    def course(self, steps_per_epoch: int, step: int, epochs: float) -> Course | None:
        return None  # ``forecast.py`` has it

    @property
    def seconds(self) -> float | None:
        return 60 * self.minutes

    def longer(self, *, steps: int, epochs: float, seconds: float) -> str:
        return f"train.budget.minutes={_twice(self.minutes, seconds / 60):g}"


def _twice(budget: float, spent: float) -> float:
    """Return twice the budget, or twice what is spent where even that would not suffice."""
    return 2 * (budget if spent < 2 * budget else spent)


Budget = Annotated[Steps | Epochs | Minutes, OneOf()]
