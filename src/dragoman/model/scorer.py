"""Attention scores: the functions of query and key that softmax turns into weights.

B batch, H query heads, G key/value heads (G divides H), C channels of one head, Q/K query and key lengths.
"""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.model.exact import overrides


class Scorer(nn.Module):
    """Scaled dot product, scale * q.k, which every kernel computes; subclasses override what differs."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    @property
    def fusable(self) -> bool:
        """True where the score is a dot product after ``project``, so that fused kernels apply."""
        return not overrides(self, Scorer, "scores")

    def project(self, q: Float[Tensor, "B H Q C"]) -> Float[Tensor, "B H Q C"]:
        return q

    def scores(self, q: Float[Tensor, "B H Q C"], k: Float[Tensor, "B G K C"]) -> Float[Tensor, "B H Q K"]:
        """Return the scores of every query of head h with the keys of head h // (H / G)."""
        B, H, Q, C = q.shape
        G, K = k.shape[1], k.shape[2]
        grouped = q.reshape(B * G, H // G * Q, C)  # queries of the heads that share keys form one matrix
        free = q.new_empty(())  # beta 0: never read
        scores = torch.baddbmm(free, grouped, k.reshape(B * G, K, C).transpose(1, 2), beta=0, alpha=self.scale)
        return scores.view(B, H, Q, K)


@config
class ScaledDot:
    """Scaled dot product q.k / sqrt(C): variance 1 at initialization for every C (Vaswani et al. 2017, section
    3.2.1)."""

    scale: PositiveFloat | None = None
    """Factor of the scores; None for 1 / sqrt(C)."""

    def build(self, heads: int, head_dim: int) -> Scorer:
        return Scorer(head_dim**-0.5 if self.scale is None else self.scale)


@config
class Dot:
    """Dot product q.k without a scale: its variance grows with C."""

    def build(self, heads: int, head_dim: int) -> Scorer:
        return Scorer(1.0)


@config
class CappedDot:
    """Capped dot product, cap tanh(scale q.k / cap): scores stay in -cap..cap (Gemma 2, arXiv:2408.00118)."""

    cap: PositiveFloat
    scale: PositiveFloat | None = None
    """Factor of the scores; None for 1 / sqrt(C)."""

    def build(self, heads: int, head_dim: int) -> Scorer:
        return CappedScorer(head_dim**-0.5 if self.scale is None else self.scale, self.cap)


@config
class Multiplicative:
    """Multiplicative score q W k with a learned matrix per head (Luong et al., arXiv:1508.04025, "general")."""

    def build(self, heads: int, head_dim: int) -> Scorer:
        return MultiplicativeScorer(heads, head_dim)


@config
class Additive:
    """Additive score v . tanh(q + k) with a learned vector per head (Bahdanau et al., arXiv:1409.0473). Memory grows
    with Q x K x C."""

    def build(self, heads: int, head_dim: int) -> Scorer:
        return AdditiveScorer(heads, head_dim)


AnyScorer = Annotated[ScaledDot | Dot | CappedDot | Multiplicative | Additive, OneOf()]


class CappedScorer(Scorer):
    def __init__(self, scale: float, cap: float):
        super().__init__(scale)
        self.cap = cap

    def scores(self, q: Float[Tensor, "B H Q C"], k: Float[Tensor, "B G K C"]) -> Float[Tensor, "B H Q K"]:
        return torch.tanh(super().scores(q, k) / self.cap) * self.cap


class MultiplicativeScorer(Scorer):
    def __init__(self, heads: int, head_dim: int):
        super().__init__(scale=1.0)
        self.weight = nn.Parameter(torch.randn(heads, head_dim, head_dim) / head_dim)  # q W k starts with variance 1

    def project(self, q: Tensor) -> Tensor:
        return q @ self.weight.to(q.dtype)


class AdditiveScorer(Scorer):
    def __init__(self, heads: int, head_dim: int):
        super().__init__(scale=1.0)
        self.weight = nn.Parameter(torch.randn(heads, head_dim) * head_dim**-0.5)

    def scores(self, q: Float[Tensor, "B H Q C"], k: Float[Tensor, "B G K C"]) -> Float[Tensor, "B H Q K"]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        met = torch.tanh(q[:, :, :, None] + k[:, :, None])  # (B, H, Q, K, C)
        return (met * self.weight[:, None, None].to(q.dtype)).sum(-1)
