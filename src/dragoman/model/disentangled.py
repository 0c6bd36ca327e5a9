"""Disentangled attention: content and distance have vectors of their own (DeBERTa, He et al., arXiv:2006.03654, 3.1).

    score(i, j) = (q_i . k_j + q_i . k(r_d) + k_j . q(r_d)) / sqrt(3 C)        d the bucket of i - j

r is a table of vectors for distances, common to all layers; q(r) and k(r) are a layer's own projections of it, the same
as those of the tokens (``share_att_key`` of DeBERTa-v2 and v3). Small distances have a bucket each, larger ones share
buckets that widen geometrically (He et al., arXiv:2111.09543, as released). Every token sees the whole text: this is
for encoders only.

B batch, H heads, T tokens, D width, C channels of one head, Q/K query and key lengths, R = 2 buckets rows of the table.
"""

import math
from collections.abc import Hashable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.attention import masked_softmax
from dragoman.model.caches.state import KVPolicy, Stateless, VisibleKeys
from dragoman.model.dropout import DropoutRate, dropout
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import AttentionMask, Full, build_self_mask
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.norm import LayerNorm, Norm
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.position import distances
from dragoman.model.positions.tokens import Positions


@config
class DisentangledAttention(MixerConfig):
    """Attention whose scores add terms of content and distance, for encoders (DeBERTa)."""

    heads: PositiveInt
    """Number of heads H."""
    head_dim: PositiveInt | None = None
    """Channels of one head C; None for width / H."""
    buckets: PositiveInt = 256
    """Number of buckets of distance in either direction."""
    reach: PositiveInt | None = 512
    """Distance from which on all tokens share the last bucket; None for one bucket a distance, up to ``buckets``."""
    norm: Norm = LayerNorm(eps=1e-7)
    """Norm on the vectors of distances."""
    bias: bool = True
    """Bias on queries, keys and values, and on the output."""
    dropout: DropoutRate = 0.0
    """Dropout on the attention weights."""

    visibility = Full()

    def channels(self, dim: int) -> int:
        """Return the channels of one head C.

        Raises:
            ConfigError: the heads do not divide the width, and ``head_dim`` is not set.
        """
        if self.head_dim is None and dim % self.heads:
            raise ConfigError(f"heads: {self.heads} heads do not divide the width {dim}; set head_dim to choose freely")
        return self.head_dim or dim // self.heads

    def build(self, dim: int) -> "DisentangledLayer":
        return DisentangledLayer(self, dim)

    def build_position(self, dim: int) -> "DistanceVectors":
        if self.reach is not None and self.reach - 1 <= self.buckets // 2:
            raise ConfigError(f"reach: {self.buckets} buckets hold distances up to {self.reach} one by one already")
        return DistanceVectors(self, dim)

    def position_key(self, dim: int) -> Hashable:
        return "disentangled", self.buckets, self.reach, self.norm, dim

    def check_decoder(self) -> None:
        raise ConfigError(
            "kind: disentangled_attention sees whole texts, and a decoder must not see what it is to predict: it is "
            "for encoders; use attention with position: t5_bias"
        )


class DistanceVectors(RelativeScheme):
    """A vector for each bucket of distance, common to all layers."""

    def __init__(self, cfg: DisentangledAttention, dim: int):
        super().__init__()
        self.cfg = cfg
        self.table, self.norm = nn.Embedding(2 * cfg.buckets, dim), cfg.norm.build(dim)

    def vectors(self) -> Float[Tensor, "R D"]:
        return self.norm(self.table.weight)

    def rows(self, q: Positions, k: Positions) -> Int[Tensor, "B Q K"]:
        """Return the row of the table for each pair of tokens."""
        return (self.bucket(distances(q, k)) + self.cfg.buckets).clamp(0, 2 * self.cfg.buckets - 1)

    def bucket(self, back: Int[Tensor, "B Q K"]) -> Int[Tensor, "B Q K"]:
        """Return the signed bucket of each distance: itself up to half of the buckets, then logarithmic."""
        if self.cfg.reach is None:
            return back
        half = self.cfg.buckets // 2
        far = back.abs().clamp(min=half).float()
        steps = torch.ceil(torch.log(far / half) / math.log((self.cfg.reach - 1) / half) * (half - 1))
        return torch.where(back.abs() <= half, back, back.sign() * (steps.long() + half))


class DisentangledContext(NamedTuple):
    """Mask, buckets and vectors of distances in one forward."""

    mask: AttentionMask
    rows: Int[Tensor, "B Q K"]
    """Row of the table of vectors for each pair of tokens."""
    vectors: Float[Tensor, "R D"]


class DisentangledLayer(MixerLayer):
    """Disentangled attention with its projections."""

    visibility = DisentangledAttention.visibility

    def __init__(self, cfg: DisentangledAttention, dim: int):
        super().__init__()
        C = cfg.channels(dim)
        self.cfg, self.head_dim, self.scale = cfg, C, (3 * C) ** -0.5
        self.q, self.k, self.v = (Linear(dim, cfg.heads * C, bias=cfg.bias) for _ in range(3))
        self.out = Linear(cfg.heads * C, dim, bias=cfg.bias)

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> DisentangledContext:
        assert isinstance(scheme, DistanceVectors)
        mask = build_self_mask(seen.visibility, new, seen.positions)
        return DisentangledContext(mask, scheme.rows(new, seen.positions), scheme.vectors())

    def forward(
        self, x: Float[Tensor, "B T D"], context: DisentangledContext, state: Stateless
    ) -> Float[Tensor, "B T D"]:
        q, k, v = (self.split_heads(part(x)) for part in (self.q, self.k, self.v))
        weights = masked_softmax(self.scores(q, k, context) * self.scale, context.mask)
        weights = dropout(weights, self.cfg.dropout if self.training else 0.0)
        return self.out((weights @ v).transpose(1, 2).flatten(-2))

    def scores(
        self, q: Float[Tensor, "B H Q C"], k: Float[Tensor, "B H K C"], context: DisentangledContext
    ) -> Float[Tensor, "B H Q K"]:
        """Return the sum of content to content, content to distance, and distance to content, without the scale."""
        vectors = context.vectors.to(q.dtype)[None]
        k_distance, q_distance = (self.split_heads(part(vectors)).transpose(-1, -2) for part in (self.k, self.q))
        index = context.rows[:, None].expand(len(q), q.shape[1], -1, -1)
        to_distance = (q @ k_distance).gather(-1, index)
        from_distance = (k @ q_distance).gather(-1, index.transpose(-1, -2)).transpose(-1, -2)
        return q @ k.transpose(-1, -2) + to_distance + from_distance

    def split_heads(self, x: Float[Tensor, "B T HC"]) -> Float[Tensor, "B H T C"]:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def new_state(self, policy: KVPolicy) -> Stateless:
        return Stateless()
