"""Projectors: from the vectors of an encoder to the width of a language model's embeddings.

B batch, P prefix length, E width of the encoder, D width of the language model.
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.model.linear import Linear
from dragoman.model.mlp import ACTIVATIONS, Activation


@config
class LinearProjector:
    """One matrix (LLaVA, Liu et al., arXiv:2304.08485, section 4.1)."""

    def build(self, width: int, dim: int) -> "ProjectorLayer":
        return ProjectorLayer([Linear(width, dim)])


@config
class MlpProjector:
    """Two matrices with an activation between (LLaVA 1.5, Liu et al., arXiv:2310.03744, section 3.3)."""

    hidden: PositiveInt | None = None
    """Width between the two; None for that of the language model."""
    activation: Activation = "gelu"

    def build(self, width: int, dim: int) -> "ProjectorLayer":
        hidden = self.hidden or dim
        return ProjectorLayer([Linear(width, hidden), _Activation(self.activation), Linear(hidden, dim)])


Projector = Annotated[LinearProjector | MlpProjector, OneOf()]


class ProjectorLayer(nn.Sequential):
    """Layers of a projector, one after the other."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__(*layers)

    def forward(self, x: Float[Tensor, "B P E"]) -> Float[Tensor, "B P D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x)


class _Activation(nn.Module):
    def __init__(self, name: Activation):
        super().__init__()
        self.function = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
