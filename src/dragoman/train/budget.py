"""How long a run learns: a number of steps, of passes over the text, or of minutes."""

import math
from typing import Annotated

from pydantic import PositiveFloat, PositiveInt

from dragoman.config import OneOf, config


@config
class Steps:
    steps: PositiveInt
    """Optimizer steps."""

    def total(self, steps_per_epoch: int) -> int | None:
        """Steps in the budget; None where only their speed can tell."""
        return self.steps

    def measured(self, step: int, seconds: float) -> int | None:
        """What ``total`` left open, after ``step`` steps in ``seconds``; None while these are too few to tell."""
        return None


@config
class Epochs:
    epochs: PositiveFloat
    """Passes over the training text."""

    def total(self, steps_per_epoch: int) -> int | None:
        return math.ceil(self.epochs * steps_per_epoch)

    def measured(self, step: int, seconds: float) -> int | None:
        return None


@config
class Minutes:
    minutes: PositiveFloat
    """Time spent learning; preparing, validating and saving come on top. The number of steps is fixed once, from the
    speed of the first twenty-fifth, so two such runs differ in length. For runs that are equal, give steps."""

    def total(self, steps_per_epoch: int) -> int | None:
        return None

    def measured(self, step: int, seconds: float) -> int | None:
        budget = 60 * self.minutes
        return max(step, round(budget * step / seconds)) if step >= 10 and seconds >= budget / 25 else None


Budget = Annotated[Steps | Epochs | Minutes, OneOf()]
