"""The feed-forward half of a block: each token by itself.

B batch, T length, D width, F hidden width.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.model.dropout import Dropout, Share
from dragoman.model.linear import Linear
from dragoman.model.ops import elementwise as kernels

Activation = Literal["relu", "gelu", "gelu_tanh", "gelu_quick", "silu", "tanh"]
"""gelu is exact, gelu_tanh its usual approximation (GPT-2, Gemma), gelu_quick x sigmoid(1.702 x) (CLIP). Swish is
silu."""


def relu(x: Tensor) -> Tensor:
    return kernels.ReluFunction.apply(x) if x.requires_grad and kernels.take_half(x) else F.relu(x)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_quick": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "tanh": torch.tanh,
}


@config
class FeedForward:
    """out(act(up(x))) (Vaswani et al. 2017, equation 2)."""

    hidden: PositiveInt
    activation: Activation = "relu"
    bias: bool = True
    dropout: Share = 0.0
    """On the activations."""

    def build(self, dim: int) -> nn.Module:
        return FeedForwardLayer(self, dim)


@config
class Gated:
    """out(act(gate(x)) * up(x)): SwiGLU with silu, GeGLU with gelu (Shazeer, arXiv:2002.05202)."""

    hidden: PositiveInt
    activation: Activation = "silu"
    bias: bool = False
    dropout: Share = 0.0
    """On the gated activations."""

    def build(self, dim: int) -> nn.Module:
        return GatedLayer(self, dim)


class FeedForwardLayer(nn.Module):
    def __init__(self, cfg: FeedForward, dim: int):
        super().__init__()
        self.up, self.out = Linear(dim, cfg.hidden, cfg.bias), Linear(cfg.hidden, dim, cfg.bias)
        self.activation, self.dropout = ACTIVATIONS[cfg.activation], Dropout(cfg.dropout)

    def forward(self, x: Float[Tensor, "*N D"], real: Tensor | None = None) -> Float[Tensor, "*N D"]:
        return self.out(self.dropout(self.activation(self.up(x))))


class GatedLayer(nn.Module):
    def __init__(self, cfg: Gated, dim: int):
        super().__init__()
        self.gate, self.up = Linear(dim, cfg.hidden, cfg.bias), Linear(dim, cfg.hidden, cfg.bias)
        self.out = Linear(cfg.hidden, dim, cfg.bias)
        self.activation, self.dropout = ACTIVATIONS[cfg.activation], Dropout(cfg.dropout)

    def forward(self, x: Float[Tensor, "*N D"], real: Tensor | None = None) -> Float[Tensor, "*N D"]:
        gate, up = self.gate(x), self.up(x)
        if self.activation is F.silu and kernels.take_half(gate, up):
            return self.out(self.dropout(kernels.SiluGateFunction.apply(gate, up)))
        return self.out(self.dropout(self.activation(gate) * up))
