"""What a relative position scheme offers to attention: how the queries of one forward relate to their keys.

B batch, T length, H heads, C channels of one head, Q/K query and key lengths.
"""

from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.visibility import Places


class Relation:
    """Computed once per forward and used by every layer that shares the scheme. This one relates nothing."""

    needs_weights = False
    """Whether ``values`` wants the attention weights, which fused kernels never store."""

    def rotate(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H T C"]:
        """Queries and new keys, before the keys are remembered."""
        return x

    def parts(self, q: Tensor, k: Tensor) -> list[tuple[slice, Tensor, Tensor]]:
        """Groups of queries that read the keys differently: (which, those queries, the keys as they see them)."""
        return [(slice(None), q, k)]

    def bias(self, q: Float[Tensor, "B H Q C"]) -> Float[Tensor, "B H Q K"] | None:
        """What is added to the scores."""
        return None

    def values(self, weights: Float[Tensor, "B H Q K"]) -> Float[Tensor, "B H Q C"]:
        """What is added to the output."""
        raise NotImplementedError


class RelativeScheme(nn.Module):
    """The base class relates nothing; a scheme overrides ``relate``."""

    def relate(self, q: Places, k: Places) -> Relation:
        """``k`` holds every key visible to anyone and ends with the queries' own."""
        return Relation()
