"""Normalization, its placement around a sublayer, and the residual connection.

B batch, T length, D width, N encoder layers, M decoder layers.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.dropout import Dropout
from dragoman.model.exact import is_plain
from dragoman.model.ops import residual as kernels
from dragoman.model.ops.elementwise import cast_for_products

# ---- the norms ------------------------------------------------------------------------------------


@config
class LayerNorm:
    """Layer normalization: (x - mean) / std, per token (Ba et al., arXiv:1607.06450)."""

    eps: PositiveFloat = 1e-5
    bias: bool = True

    def build(self, dim: int) -> nn.Module:
        return nn.LayerNorm(dim, eps=self.eps, bias=self.bias)


@config
class RmsNorm:
    """RMSNorm: x / root mean square, per token (Zhang & Sennrich, arXiv:1910.07467)."""

    eps: PositiveFloat = 1e-6

    def build(self, dim: int) -> nn.Module:
        return RmsNormLayer(dim, self.eps)


@config
class ZeroCenteredRmsNorm:
    """RMSNorm with its weight stored as the difference from 1, so that weight decay pulls it to 1 (Gemma)."""

    eps: PositiveFloat = 1e-6

    def build(self, dim: int) -> nn.Module:
        return ZeroCenteredRmsNormLayer(dim, self.eps)


@config
class NoNorm:
    """No normalization."""

    def build(self, dim: int) -> nn.Module:
        return nn.Identity()


Norm = Annotated[LayerNorm | RmsNorm | ZeroCenteredRmsNorm | NoNorm, OneOf()]


@config
class ProjectionRmsNorm:
    """RMSNorm of queries, and of keys, over the channels of all heads together (OLMo 2, arXiv:2501.00656)."""

    eps: PositiveFloat = 1e-6

    def build_for_heads(self, heads: int, head_dim: int) -> nn.Module:
        return ProjectionRmsNormLayer(heads * head_dim, self.eps)


QueryKeyNorm = Annotated[LayerNorm | RmsNorm | ZeroCenteredRmsNorm | NoNorm | ProjectionRmsNorm, OneOf()]
"""Norm of queries and keys: of each head by itself, or of all heads together."""


def build_query_key_norm(norm: QueryKeyNorm, heads: int, head_dim: int) -> nn.Module:
    """Return the norm of ``heads`` heads, which takes (B, heads, T, head_dim)."""
    return norm.build_for_heads(heads, head_dim) if isinstance(norm, ProjectionRmsNorm) else norm.build(head_dim)


class RmsNormLayer(nn.Module):
    """x / root mean square * weight."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    @property
    def scale(self) -> Float[Tensor, " D"]:
        return self.weight

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return rms_norm(x, self.scale, self.eps)


class ZeroCenteredRmsNormLayer(nn.Module):
    """x / root mean square * (1 + weight)."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(dim)), eps

    @property
    def scale(self) -> Float[Tensor, " D"]:
        return 1 + self.weight

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return rms_norm(x, self.scale, self.eps)


class ProjectionRmsNormLayer(RmsNormLayer):
    """RMSNorm over all heads of a token; its weight has their channels, head by head."""

    def forward(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H T C"]:
        together = x.transpose(1, 2).flatten(-2)
        return super().forward(together).unflatten(-1, (-1, x.shape[-1])).transpose(1, 2)


def rms_norm(x: Float[Tensor, "*N D"], weight: Float[Tensor, " D"], eps: float) -> Float[Tensor, "*N D"]:
    """Return x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""
    if x.device.type == "cpu" and x.dtype == weight.dtype and torch.is_grad_enabled():
        return _RmsNorm.apply(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


class _RmsNorm(torch.autograd.Function):
    """F.rms_norm with a hand-written derivative: PyTorch has no CPU kernel and passes over memory twice as often."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        normed, scale, weight = ctx.saved_tensors
        along = upstream * normed
        mean = (along @ weight).unsqueeze(-1).div_(-normed.shape[-1])
        return torch.addcmul(upstream * weight, normed, mean).mul_(scale), along.flatten(0, -2).sum(0), None


# ---- placement ------------------------------------------------------------------------------------

Placement = Literal["post", "pre", "pre_mlp", "sandwich", "output"]

#                      before f   on f's output   after the sum
_SLOTS: dict[Placement, tuple[bool, bool, bool]] = {
    "post":           (False,     False,          True),   # Vaswani et al. 2017
    "pre":            (True,      False,          False),  # GPT-2
    "pre_mlp":        (True,      False,          False),  # of the feed-forward alone: ModernBERT's first block
    "sandwich":       (True,      True,           False),  # Gemma 2
    "output":         (False,     True,           False),  # OLMo 2
}  # fmt: skip


# ---- residual scaling -------------------------------------------------------------------------------


class Depths(NamedTuple):
    """Number of encoder and decoder layers; 0 for a side that is missing."""

    encoder: int
    decoder: int


class ResidualScale(NamedTuple):
    """Factors of one residual connection."""

    residual_scale: float
    """Factor of the input, before the sublayer's output is added."""
    gain: float
    """Factor of the initial values of the sublayer's value, output and feed-forward matrices."""


@config
class PlainResidual:
    """x + f(x), without scaling."""

    def scale(self, depths: Depths, in_encoder: bool, placement: Placement) -> ResidualScale:
        return ResidualScale(1.0, 1.0)


@config
class DeepNorm:
    """DeepNorm: constants that bound updates up to 1,000 post-norm layers (Wang et al., arXiv:2203.00555, Figure 2)."""

    def scale(self, depths: Depths, in_encoder: bool, placement: Placement) -> ResidualScale:
        if placement != "post":
            raise ConfigError(
                f"residual: deep_norm needs a norm after each sum: set placement to post, it is {placement}"
            )
        N, M = depths
        if N and M and in_encoder:
            return ResidualScale(0.81 * (N**4 * M) ** (1 / 16), 0.87 * (N**4 * M) ** (-1 / 16))
        if N and M:
            return ResidualScale((3 * M) ** 0.25, (12 * M) ** -0.25)
        depth = N or M
        return ResidualScale((2 * depth) ** 0.25, (8 * depth) ** -0.25)


@config
class NoSkip:
    """f(x) alone, without x: no residual connection, to see what it is for (He et al., arXiv:1512.03385)."""

    def scale(self, depths: Depths, in_encoder: bool, placement: Placement) -> ResidualScale:
        return ResidualScale(0.0, 1.0)


@config
class LayerScale:
    """LayerScale: a learned factor for each channel of a sublayer's output (Touvron et al., arXiv:2103.17239)."""

    initial: PositiveFloat = 1e-5
    """Initial value of all factors."""

    def scale(self, depths: Depths, in_encoder: bool, placement: Placement) -> ResidualScale:
        return ResidualScale(1.0, 1.0)


ResidualScaling = Annotated[PlainResidual | DeepNorm | NoSkip | LayerScale, OneOf()]


class Residual(nn.Module):
    """Residual connection: x -> after(residual_scale x + dropout(output(f(before(x))))).

    ``before``, ``output`` and ``after`` are norms or identities, as the placement says.
    """

    def __init__(self, norm: Norm, placement: Placement, dim: int, dropout: float, residual_scale: float = 1.0):
        super().__init__()
        self.before, self.output, self.after = (
            norm.build(dim) if used else nn.Identity() for used in _SLOTS[placement]
        )
        self.dropout, self.residual_scale = Dropout(dropout), residual_scale

    def forward(self, x: Float[Tensor, "B T D"], f: Callable[[Tensor], Tensor]) -> Float[Tensor, "B T D"]:
        x, read = self.read(x)
        return self.add(x, self.output(f(read)))

    def read(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"]]:
        """Return ``x``, and the input of ``f`` in the precision of matrix products, for only those read it."""
        norm = self.before
        if is_plain(norm, RmsNormLayer, ZeroCenteredRmsNormLayer) and kernels.supports_norm(x, scale := norm.scale):
            return kernels.RmsNormFunction.apply(x, scale, norm.eps)
        if is_plain(norm, nn.Identity) and kernels.supports_cast(x):
            return kernels.CastFunction.apply(x)
        return x, cast_for_products(norm(x))

    def add(self, x: Float[Tensor, "B T D"], y: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return after(residual_scale x + dropout(y))."""
        norm = self.after
        if is_plain(self.dropout, Dropout):
            rate = self.dropout.rate if self.dropout.training else 0.0
            if _is_over_channels(norm) and kernels.supports_sum(x, y, *norm.parameters()):
                return kernels.AddLayerNormFunction.apply(
                    x, y, self.residual_scale, rate, norm.weight, norm.bias, norm.eps
                )
            if kernels.supports_sum(x, y):
                return norm(kernels.AddFunction.apply(x, y, self.residual_scale, rate))
        return norm(torch.add(self.dropout(y), x, alpha=self.residual_scale))


class LayerScaledResidual(Residual):
    """Residual connection with a factor for each channel: x -> after(x + dropout(factor * output(f(before(x)))))."""

    def __init__(self, norm: Norm, placement: Placement, dim: int, dropout: float, initial: float):
        super().__init__(norm, placement, dim, dropout)
        self.factor = nn.Parameter(torch.full((dim,), initial))

    def add(self, x: Float[Tensor, "B T D"], y: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return super().add(x, y * self.factor.to(y.dtype))


class NoResidual(nn.Module):
    """x -> x, in the place of the residual connection of a layer that a block does not have."""

    def forward(self, x: Float[Tensor, "B T D"], f: Callable[[Tensor], Tensor]) -> Float[Tensor, "B T D"]:
        return x


def _is_over_channels(norm: nn.Module) -> TypeGuard[nn.LayerNorm]:
    """Return whether ``norm`` is PyTorch's layer norm over channels, with a weight: all that the kernel computes."""
    return is_plain(norm, nn.LayerNorm) and norm.weight is not None and len(norm.normalized_shape) == 1
