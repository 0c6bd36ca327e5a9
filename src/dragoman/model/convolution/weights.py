"""Linear layers of convolutional models: plain, or with normalized weights, and their initialization.

K inputs, N outputs of a layer.
"""

import math
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.model.linear import Linear
from dragoman.model.ops import products as kernels


@config
class PlainWeights:
    """Weights as they are."""

    def build(self, inputs: int, outputs: int) -> Linear:
        return Linear(inputs, outputs)


@config
class WeightNorm:
    """Weight normalization: learn each output's length and direction apart (Salimans & Kingma, arXiv:1602.07868)."""

    def build(self, inputs: int, outputs: int) -> Linear:
        return WeightNormLinear(inputs, outputs)


Weights = Annotated[PlainWeights | WeightNorm, OneOf()]


class WeightNormLinear(Linear):
    """y = gain * (v x / |v|) + b for each output, where v is its row of ``weight``."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(self.weight.detach().norm(dim=1))

    def forward(self, x: Float[Tensor, "*R K"]) -> Float[Tensor, "*R N"]:
        weight = self.normalized()
        if kernels.runs_in_bfloat16(x, weight):
            return kernels.NarrowLinear.apply(x, weight, self.bias)
        return self.product(x, weight, self.bias)

    def normalized(self) -> Float[Tensor, "N K"]:
        """Return the matrix that inputs are multiplied by."""
        return self.weight * (self.gain / torch.linalg.vector_norm(self.weight, dim=1))[:, None]


def fill(layer: Linear, gain: float, retained: float = 1.0) -> None:
    """Initialize so that outputs vary as much as inputs (Gehring et al. 2017, section 3.5): weights are normal with
    variance gain * retained / K, biases 0.

    Args:
        layer: the layer.
        gain: factor that makes up for what follows or precedes: 1 for nothing or a tanh, 4 for a gated linear unit
            after the layer, 2 for a ReLU before it.
        retained: probability with which dropout retains an input.
    """
    nn.init.normal_(layer.weight, std=math.sqrt(gain * retained / layer.in_features))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if isinstance(layer, WeightNormLinear):
        with torch.no_grad():
            layer.gain.copy_(layer.weight.norm(dim=1))


@torch.no_grad()
def fold_weight_norm(model: nn.Module) -> None:
    """Replace every layer with normalized weights by a plain one that computes the same, for inference."""
    for name, child in list(model.named_children()):
        if type(child) is WeightNormLinear:
            plain = Linear(child.in_features, child.out_features).to(child.weight)
            plain.weight.copy_(child.normalized())
            plain.bias.copy_(child.bias)
            setattr(model, name, plain)
        else:
            fold_weight_norm(child)
