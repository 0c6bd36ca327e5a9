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

    @property
    def seconds(self) -> float | None:
        """Time to learn; None where that is not what the budget limits."""
        return None

    @property
    def doubled(self) -> str:
        """The setting for twice as much."""
        return f"train.budget.steps={2 * self.steps}"


@config
class Epochs:
    epochs: PositiveFloat
    """Passes over the training text."""

    def total(self, steps_per_epoch: int) -> int | None:
        return math.ceil(self.epochs * steps_per_epoch)

    @property
    def seconds(self) -> float | None:
        return None

    @property
    def doubled(self) -> str:
        return f"train.budget.epochs={2 * self.epochs:g}"


@config
class Minutes:
    minutes: PositiveFloat
    """Time spent learning; preparing, validating, saving and suspension come on top. The schedule follows the time, so
    two such runs differ in length; one that is resumed repeats what it did. For runs that are equal, give steps."""

    def total(self, steps_per_epoch: int) -> int | None:
        return None

    @property
    def seconds(self) -> float | None:
        return 60 * self.minutes

    @property
    def doubled(self) -> str:
        return f"train.budget.minutes={2 * self.minutes:g}"


Budget = Annotated[Steps | Epochs | Minutes, OneOf()]
