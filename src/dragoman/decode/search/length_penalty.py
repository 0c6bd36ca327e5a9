"""Length penalties of beam search: a score is log-probability / divisor(tokens, the end included)."""

from functools import lru_cache
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError

STRONGEST = 8.0
"""Largest alpha: with it, divisors of tens of thousands of tokens are numbers of float32."""


@config
class NoPenalty:
    """Plain log-probability. It favours short translations, more so the larger the beam."""

    def divisor(self, length: int) -> float:
        return 1.0


@config
class Gnmt:
    """((5 + length) / 6) ^ alpha (Wu et al. 2016, equation 14)."""

    alpha: float = 0.6

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def divisor(self, length: int) -> float:
        return ((5 + length) / 6) ** self.alpha


@config
class Average:
    """length ^ alpha; with 1, the mean log-probability of a token."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def divisor(self, length: int) -> float:
        return length**self.alpha


LengthPenalty = Annotated[NoPenalty | Gnmt | Average, OneOf()]


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= STRONGEST:  # NaN is outside too
        raise ConfigError(f"a length penalty's alpha: a number from 0 to {STRONGEST:g} is expected, got {alpha}")


@lru_cache
def divisors(penalty: LengthPenalty, longest: int) -> Float[Tensor, " lengths"]:
    """Return the divisor of each number of tokens from 0 to ``longest``."""
    return torch.tensor([penalty.divisor(n) for n in range(longest + 1)])
