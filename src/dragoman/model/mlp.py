"""Feed-forward layers, plain and gated: each token by itself.

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
from dragoman.model.dropout import Dropout, DropoutRate
from dragoman.model.linear import Linear
from dragoman.model.ops import elementwise as kernels

Activation = Literal["relu", "gelu", "gelu_tanh", "gelu_quick", "silu", "tanh"]
"""Name of an activation: gelu is exact, gelu_tanh its usual approximation (GPT-2, Gemma), gelu_quick is
x sigmoid(1.702 x) (CLIP), silu is also known as Swish."""


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), by a kernel of ours where bfloat16 is trained on a CPU."""
    return kernels.ReluFunction.apply(x) if x.requires_grad and kernels.supports_relu(x) else F.relu(x)


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
    """Feed-forward layer: out(act(up(x))) (Vaswani et al. 2017, equation 2)."""

    hidden: PositiveInt
    activation: Activation = "relu"
    bias: bool = True
    dropout: DropoutRate = 0.0
    """Dropout on the activations."""

    def build(self, dim: int) -> nn.Module:
        return FeedForwardLayer(self, dim)


@config
class Gated:
    """Gated feed-forward layer: out(act(gate(x)) * up(x)). SwiGLU with silu, GeGLU with gelu (Shazeer,
    arXiv:2002.05202)."""

    hidden: PositiveInt
    activation: Activation = "silu"
    bias: bool = False
    dropout: DropoutRate = 0.0
    """Dropout on the gated activations."""

    def build(self, dim: int) -> nn.Module:
        return GatedLayer(self, dim)


@config
class NoFeedForward:
    """No feed-forward layer: a block is its mixer alone, as in Mamba."""

    def build(self, dim: int) -> nn.Module:
        return nn.Identity()


class FeedForwardLayer(nn.Module):
    """out(dropout(act(up(x))))."""

    def __init__(self, cfg: FeedForward, dim: int):
        super().__init__()
        self.up, self.out = Linear(dim, cfg.hidden, cfg.bias), Linear(cfg.hidden, dim, cfg.bias)
        self.activation, self.dropout = ACTIVATIONS[cfg.activation], Dropout(cfg.dropout)

    def forward(self, x: Float[Tensor, "*N D"], real: Tensor | None = None) -> Float[Tensor, "*N D"]:
        return self.out(self.dropout(self.activation(self.up(x))))


class GatedLayer(nn.Module):
    """out(dropout(act(gate(x)) * up(x)))."""

    def __init__(self, cfg: Gated, dim: int):
        super().__init__()
        self.gate, self.up = Linear(dim, cfg.hidden, cfg.bias), Linear(dim, cfg.hidden, cfg.bias)
        self.out = Linear(cfg.hidden, dim, cfg.bias)
        self.activation, self.dropout = ACTIVATIONS[cfg.activation], Dropout(cfg.dropout)

    def forward(self, x: Float[Tensor, "*N D"], real: Tensor | None = None) -> Float[Tensor, "*N D"]:
        gate, up = self.gate(x), self.up(x)
        if self.activation is F.silu and kernels.supports_rows(gate, up):
            return self.out(self.dropout(kernels.SiluGateFunction.apply(gate, up)))
        return self.out(self.dropout(self.activation(gate) * up))
