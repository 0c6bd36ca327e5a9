"""Linear attention: weights that are products of features, so that the past is a sum of fixed size.

    y_t = phi(q_t) S_t / (phi(q_t) z_t),    S_t = sum of phi(k_s) v_s^T,    z_t = sum of phi(k_s)

over the tokens s up to t, or over all of a text (Katharopoulos et al., arXiv:2006.16236). Training computes chunks of
tokens by products (``ops/chunked_recurrence.py``): time and memory grow with the length, not with its square. While
decoding, S and z are the state.

B batch, H heads, T tokens, C channels of one head, M features of one head.
"""

from collections.abc import Hashable, Iterable
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor

from dragoman.config import OneOf, config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy, VisibleKeys
from dragoman.model.caches.summary import Summary, SummaryState
from dragoman.model.feature_maps import AnyFeatures, EluFeatures, FeatureMap, Features
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal, Full, Visibility
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.ops.chunked_recurrence import LOG_ZERO, decayed_recurrence, full_precision, stabilize, widen
from dragoman.model.positions.effect import PositionEffect, RelativeScheme
from dragoman.model.positions.position import NoPosition
from dragoman.model.positions.rotary import DynamicNtkScaling, LongRope, Rotary, Yarn
from dragoman.model.positions.tokens import Positions
from dragoman.model.recurrence import Recurrence

FeaturePosition = Annotated[NoPosition | Rotary, OneOf()]
"""Relative positions that linear attention can have: none, or a rotation of each token by itself."""

EPS = 1e-12
"""Term of the denominator, by which a token that sees nothing gets 0. It is small beside the products of features that
fit badly, and its square is still a number in float32, for the derivative."""


@config
class LinearAttention(MixerConfig):
    """Linear attention: kernel features instead of softmax (Katharopoulos et al.; Performer)."""

    heads: PositiveInt
    """Number of heads H."""
    head_dim: PositiveInt | None = None
    """Channels of one head C; None for width / H."""
    features: AnyFeatures = EluFeatures()
    position: FeaturePosition = NoPosition()
    causal: bool = True
    """Sum over a token and those before it; false: over the whole text, for encoders."""
    bias: bool = False
    """Bias on queries, keys and values, and on the output."""

    @property
    def visibility(self) -> Visibility:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Causal(window=1) if self.causal else Full()

    def channels(self, dim: int) -> int:
        """Return the channels of one head C.

        Raises:
            ConfigError: the heads do not divide the width, and ``head_dim`` is not set.
        """
        if self.head_dim is None and dim % self.heads:
            raise ConfigError(f"heads: {self.heads} heads do not divide the width {dim}; set head_dim to choose freely")
        return self.head_dim or dim // self.heads

    def build(self, dim: int) -> "LinearAttentionLayer":
        return LinearAttentionLayer(self, dim)

    def build_position(self, dim: int) -> RelativeScheme:
        scaling = getattr(self.position, "scaling", None)
        if isinstance(scaling, DynamicNtkScaling):
            raise ConfigError(
                "position.scaling: dynamic_ntk_scaling rotates all keys again for each query, and linear attention "
                "keeps only their sum: use ntk_scaling"
            )
        if isinstance(scaling, Yarn | LongRope) and isinstance(self.features, EluFeatures):
            raise ConfigError(
                f"position.scaling: {kind_of(type(scaling))} sharpens a softmax, and elu_features have none: use "
                "ntk_scaling, or favor_features"
            )
        return self.position.build(self.heads, self.channels(dim))

    def position_key(self, dim: int) -> Hashable:
        return self.position, self.heads, self.channels(dim)

    def check_decoder(self) -> None:
        if not self.causal:
            raise ConfigError("causal: a decoder must not see what it is to predict: only true fits here")


class LinearAttentionContext(NamedTuple):
    """Padding, boundaries of texts, and positions of one forward."""

    recurrence: Recurrence
    position_effect: PositionEffect


class LinearAttentionLayer(MixerLayer):
    """Linear attention with its projections."""

    features: FeatureMap

    def __init__(self, cfg: LinearAttention, dim: int):
        super().__init__()
        C = cfg.channels(dim)
        self.cfg, self.head_dim, self.visibility = cfg, C, cfg.visibility
        self.q, self.k, self.v = (Linear(dim, cfg.heads * C, bias=cfg.bias) for _ in range(3))
        self.out = Linear(cfg.heads * C, dim, bias=cfg.bias)
        self.features = cfg.features.build(C)

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> LinearAttentionContext:
        return LinearAttentionContext(Recurrence.of(new, seen), scheme.effect(new, seen.positions, dtype))

    def forward(
        self, x: Float[Tensor, "B T D"], context: LinearAttentionContext, state: SummaryState
    ) -> Float[Tensor, "B T D"]:
        projected = self.v(x)
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for y in widen(self.q(x), self.k(x), projected))
        with full_precision(x):
            found = self.features(q, k, context.position_effect)
            real, starts = context.recurrence.real, context.recurrence.starts
            if self.cfg.causal:
                over_time = (None if y is None else y.transpose(1, 2) for y in (*found, v))
                mixed = state.read(read_past, *over_time, real, starts)
            else:
                mixed = read_all(found, v, real, starts).transpose(1, 2)
        return self.out(mixed.flatten(-2).to(projected.dtype))

    def new_state(self, policy: KVPolicy) -> SummaryState:
        return SummaryState(remembers=policy.remembers)


# ---- numerator and denominator ----------------------------------------------------------------------


def streams(found: Features, v: Float[Tensor, "B H T C"]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return queries, keys and values of the sums that make up numerator and denominator, in which each value is 1.

    They are one sum where both have the same features.
    """
    one = torch.ones_like(v[..., :1])
    if found.rotated_q is None or found.rotated_k is None:
        return [(found.q, found.k, torch.cat([v, one], dim=-1))]
    return [(found.rotated_q, found.rotated_k, v), (found.q, found.k, one)]


def divide(sums: Iterable[Tensor]) -> Tensor:
    """Return numerator / denominator, from the outputs of ``streams``."""
    joined = torch.cat([*sums], dim=-1)
    return joined[..., :-1] / (joined[..., -1:] + EPS)


def without_padding(found: Features, real: Bool[Tensor, "#B T"] | None) -> Features:
    """Return the features with zeros for the keys of padding."""
    if real is None:
        return found
    padding = ~real[:, None]
    return found._replace(
        k=found.k.masked_fill(padding[..., None], 0),
        rotated_k=None if found.rotated_k is None else found.rotated_k.masked_fill(padding[..., None], 0),
        log_size=None if found.log_size is None else found.log_size.masked_fill(padding, LOG_ZERO),
    )


# ---- sums over the past -----------------------------------------------------------------------------


def read_past(
    summary: Summary | None,
    q: Float[Tensor, "B T H M"],
    k: Float[Tensor, "B T H M"],
    log_size: Float[Tensor, "B T H"] | None,
    rotated_q: Float[Tensor, "B T H M"] | None,
    rotated_k: Float[Tensor, "B T H M"] | None,
    v: Float[Tensor, "B T H C"],
    real: Bool[Tensor, "#B T"] | None,
    starts: Bool[Tensor, "#B T"] | None,
) -> tuple[Float[Tensor, "B T H C"], Summary]:
    """Return the weighted means of the values up to each token, and the sums after the last.

    Keys whose features were divided by their size are summed relative to the largest so far, which is part of the
    summary: like the exponential gates of mLSTM they would leave the range of numbers.
    """
    given = (None if y is None else y.transpose(1, 2) for y in (q, k, log_size, rotated_q, rotated_k))
    found = without_padding(Features(*given), real)  # pyright: ignore[reportArgumentType]
    *past, largest = (None, None, None) if summary is None else summary
    log_decay = None
    if found.log_size is not None:
        factor, log_decay, maxima = stabilize(found.log_size, None, starts, largest, LOG_ZERO)
        found, largest = found._replace(k=found.k * factor[..., None]), maxima[..., -1]
    read = [
        decayed_recurrence(*stream, log_decay, starts, before)
        for stream, before in zip(streams(found, v.transpose(1, 2)), past, strict=False)
    ]
    means = divide(outputs for outputs, _ in read).transpose(1, 2)
    return means, (*(after for _, after in read), q.new_zeros(q.shape[0]) if largest is None else largest)


# ---- sums over a whole text -------------------------------------------------------------------------


def read_all(
    found: Features,
    v: Float[Tensor, "B H T C"],
    real: Bool[Tensor, "#B T"] | None,
    starts: Bool[Tensor, "#B T"] | None,
) -> Float[Tensor, "B H T C"]:
    """Return the weighted means of the values of each text."""
    found = without_padding(found, real)
    if found.log_size is not None:
        factor = (found.log_size - largest_of_text(found.log_size.detach(), starts)).exp()
        found = found._replace(k=found.k * factor[..., None])
    return divide(sum_of_text(*stream, starts) for stream in streams(found, v))


def largest_of_text(
    x: Float[Tensor, "B H T"], starts: Bool[Tensor, "#B T"] | None
) -> Float[Tensor, "B H T"] | Float[Tensor, "B H 1"]:
    """Return the maximum over the text that each token is in."""
    if starts is None:
        return x.amax(-1, keepdim=True)
    text = starts.cumsum(-1)[:, None].expand_as(x)
    maxima = x.new_full((*x.shape[:2], x.shape[2] + 1), LOG_ZERO)
    return maxima.scatter_reduce(-1, text, x, "amax").gather(-1, text)


def sum_of_text(
    q: Float[Tensor, "B H T M"],
    k: Float[Tensor, "B H T M"],
    v: Float[Tensor, "B H T V"],
    starts: Bool[Tensor, "#B T"] | None,
) -> Float[Tensor, "B H T V"]:
    """Return q_t times the sum of k_s v_s^T over the text of each token: where rows hold several texts, over those up
    to it and over those from it on, in which it is counted twice."""
    if starts is None:
        return q @ (k.transpose(-1, -2) @ v)
    ends = torch.cat([starts[:, 1:], torch.ones_like(starts[:, :1])], dim=1)
    before, _ = decayed_recurrence(q, k, v, None, starts)
    after, _ = decayed_recurrence(q.flip(2), k.flip(2), v.flip(2), None, ends.flip(1))
    return before + after.flip(2) - (q * k).sum(-1, keepdim=True) * v
