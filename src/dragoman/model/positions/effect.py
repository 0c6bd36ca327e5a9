"""What a relative position scheme offers to attention: how the queries of one forward relate to their keys.

B batch, T length, H heads, C channels of one head, Q/K query and key lengths.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.exact import overrides
from dragoman.model.positions.tokens import Positions


class PositionEffect:
    """Computed once per forward and used by every layer that shares the scheme. This one relates nothing."""

    @property
    def fusable(self) -> bool:
        """Whether a kernel can do it that takes one set of keys, adds a bias and never stores its weights."""
        return not overrides(self, PositionEffect, "parts", "values")

    @property
    def biased(self) -> bool:
        """Whether ``bias`` may return anything."""
        return overrides(self, PositionEffect, "bias")

    def rotate(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H T C"]:
        """Queries and new keys, before the keys are remembered."""
        return x

    def parts(self, q: Tensor, k: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Groups of successive queries, each with the keys as it reads them."""
        return [(q, k)]

    def bias(self, q: Float[Tensor, "B H Q C"], scale: float) -> Float[Tensor, "B H Q K"] | None:
        """What is added to the scores, which are q.k times ``scale``."""
        return None

    def values(self, weights: Float[Tensor, "B H Q K"]) -> Float[Tensor, "B H Q C"] | None:
        """What is added to the output."""
        return None


class RelativeScheme(nn.Module):
    """The base class relates nothing; a scheme overrides ``relate``."""

    def effect(self, q: Positions, k: Positions, dtype: torch.dtype) -> PositionEffect:
        """``k`` holds every key visible to anyone and ends with the queries' own; ``dtype`` is what to compute in."""
        return PositionEffect()
