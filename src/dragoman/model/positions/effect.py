"""Interface of relative position schemes: their effect on the queries, keys and scores of one forward.

B batch, T length, H heads, C channels of one head, Q/K query and key lengths.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.exact import overrides
from dragoman.model.positions.tokens import Positions


class PositionEffect:
    """Effect of positions in one forward, computed once for all layers that share the scheme. The base has none."""

    @property
    def fusable(self) -> bool:
        """True where fused kernels apply: one set of keys, at most a bias, and no use of the weights."""
        return not overrides(self, PositionEffect, "parts", "values")

    @property
    def biased(self) -> bool:
        """True where ``bias`` is overridden."""
        return overrides(self, PositionEffect, "bias")

    def rotate(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H T C"]:
        """Transform queries, and new keys before they are cached."""
        return x

    def parts(self, q: Tensor, k: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return groups of successive queries, each with its version of the keys."""
        return [(q, k)]

    def bias(self, q: Float[Tensor, "B H Q C"], scale: float) -> Float[Tensor, "B H Q K"] | None:
        """Return the term to add to the scores, which are q.k times ``scale``; None for none."""
        return None

    def values(self, weights: Float[Tensor, "B H Q K"]) -> Float[Tensor, "B H Q C"] | None:
        """Return the term to add to the output; None for none."""
        return None


class RelativeScheme(nn.Module):
    """Base of the schemes, without an effect; a scheme overrides ``effect``."""

    limits: tuple[int, ...] = ()
    """Lengths in tokens beyond which a text has other positions, in all of it: see ``rereading.py``."""

    def effect(self, q: Positions, k: Positions, dtype: torch.dtype) -> PositionEffect:
        """Compute the effect for one forward.

        Args:
            q: positions of the queries.
            k: positions of all keys, those of the queries last.
            dtype: data type to compute in.
        """
        return PositionEffect()
