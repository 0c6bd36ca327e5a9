"""Multi-head attention, every variant: softmax(score(q, k)) v.

B batch, T length, D model width, H query heads, G key/value heads (G divides H), C channels of one head,
Q/K query and key lengths, S source length, N sentences (B is a multiple of N: the beams of a search share a source).
"""

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KV, KVPolicy, KVState, VisibleKeys
from dragoman.model.dropout import DropoutRate, dropout
from dragoman.model.exact import is_plain
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import AttentionMask, Visibility, VisibilityRule, build_self_mask
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.norm import NoNorm, QueryKeyNorm, build_query_key_norm
from dragoman.model.ops import attention as kernels
from dragoman.model.ops import elementwise
from dragoman.model.positions.effect import PositionEffect, RelativeScheme
from dragoman.model.positions.position import NoPosition, RelativePosition
from dragoman.model.positions.tokens import Positions
from dragoman.model.scorer import AnyScorer, ScaledDot


class AttentionContext(NamedTuple):
    """Mask, positions and cache columns of one forward, shared by all layers of equal position and visibility."""

    mask: AttentionMask
    position_effect: PositionEffect
    retained: Int[Tensor, " K"] | None
    """Columns of the keys that later tokens may see; None for all."""


@config
class AttentionConfig(MixerConfig):
    """Configuration of multi-head, multi-query or grouped-query attention."""

    heads: PositiveInt
    """Number of query heads H."""
    kv_heads: PositiveInt | None = None
    """Number of key/value heads G: None for H (multi-head), 1 for multi-query, in between for grouped-query."""
    head_dim: PositiveInt | None = None
    """Channels of one head C; None for width / H."""
    position: RelativePosition = NoPosition()
    visibility: Visibility  # pyright: ignore[reportIncompatibleVariableOverride]
    """Attention mask: usually causal in a decoder, full in an encoder and in cross-attention."""
    scorer: AnyScorer = ScaledDot()
    qk_norm: QueryKeyNorm = NoNorm()
    """Norm on queries and keys, before positions: on each head's, or on those of all heads together."""
    bias: bool = False
    """Bias on queries, keys and values, and on the output."""
    out_bias: bool | None = None
    """Bias on the output; None for the same as ``bias`` (Qwen 2 has one on queries, keys and values only)."""
    dropout: DropoutRate = 0.0
    """Dropout on the attention weights."""

    def channels(self, dim: int) -> int:
        """Return the channels of one head C.

        Raises:
            ConfigError: the heads do not divide the width, and ``head_dim`` is not set.
        """
        if self.head_dim is None and dim % self.heads:
            raise ConfigError(f"heads: {self.heads} heads do not divide the width {dim}; set head_dim to choose freely")
        return self.head_dim or dim // self.heads

    def build(self, dim: int) -> "Attention":
        return Attention(self, dim)

    @property
    def key_value_heads(self) -> int:
        """Number of key/value heads G, with the default resolved."""
        return resolve_kv_heads(self.kv_heads, self.heads)

    @property
    def needs_grid(self) -> bool:
        return getattr(self.position, "needs_grid", False)

    def check_decoder(self) -> None:
        if self.visibility.sees_future:
            raise ConfigError(
                f"visibility: {kind_of(type(self.visibility))}: a decoder must not see what it is to predict; use "
                "causal, or prefix"
            )

    def build_position(self, dim: int) -> RelativeScheme:
        return self.position.build(self.heads, self.channels(dim))

    def position_key(self, dim: int) -> Hashable:
        return (self.position, self.heads, self.channels(dim)) if self.position.shared else None


def resolve_kv_heads(kv_heads: int | None, heads: int) -> int:
    """Resolve None to one key/value head for each query head."""
    return heads if kv_heads is None else kv_heads


class Attention(MixerLayer):
    """Self-attention (``forward``), and cross-attention to an encoded source (``read``)."""

    def __init__(self, cfg: AttentionConfig, dim: int):
        super().__init__()
        H, G, C = cfg.heads, cfg.key_value_heads, cfg.channels(dim)
        if H % G:
            raise ConfigError(f"kv_heads: {G} key/value heads do not divide {H} query heads")
        self.cfg, self.head_dim, self.visibility = cfg, C, cfg.visibility
        self.q = Linear(dim, H * C, bias=cfg.bias)
        self.k = Linear(dim, G * C, bias=cfg.bias)
        self.v = Linear(dim, G * C, bias=cfg.bias)
        self.out = Linear(H * C, dim, bias=cfg.bias if cfg.out_bias is None else cfg.out_bias)
        self.q_norm, self.k_norm = (build_query_key_norm(cfg.qk_norm, heads, C) for heads in (H, G))
        self.scorer = cfg.scorer.build(H, C)
        # for forward hooks: receive (B, H, Q, K), before the mask and after softmax, only while one is registered
        self.scores, self.weights = nn.Identity(), nn.Identity()

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> AttentionContext:
        mask = build_self_mask(seen.visibility, new, seen.positions)
        return AttentionContext(mask, scheme.effect(new, seen.positions, dtype), seen.retained)

    def forward(self, x: Float[Tensor, "B T D"], context: AttentionContext, state: KVState) -> Float[Tensor, "B T D"]:
        """Attend from ``x`` to ``x`` and to the keys in ``state``, which are extended."""
        q, (k, v) = self.project(x)
        seen = state.extend(KV(context.position_effect.rotate(k), v), context.retained)
        return self.attend(context.position_effect.rotate(q), seen, context)

    def read(self, x: Float[Tensor, "B T D"], context: AttentionContext, source: KV) -> Float[Tensor, "B T D"]:
        """Attend from ``x`` to an encoded source of N sentences; each sentence has B / N successive rows of ``x``."""
        (B, T, _), N = x.shape, source.k.shape[0]
        if B == N:
            return self.attend(self.query(x), source, context)
        side_by_side = x.reshape(N, B // N * T, -1)  # the beams of a sentence read its keys together, once
        return self.attend(self.query(side_by_side), source, context).view(B, T, -1)

    def project(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B H T C"], KV]:
        """Compute queries, keys and values of the same tokens."""
        return self.query(x), self.key_value(x)

    def query(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T C"]:
        return self.scorer.project(self.q_norm(self.split_heads(self.q(x))))

    def key_value(self, x: Float[Tensor, "B T D"]) -> KV:
        """Compute keys and values, of new tokens or of an encoded source."""
        return KV(self.k_norm(self.split_heads(self.k(x))), self.split_heads(self.v(x)))

    def new_state(self, policy: KVPolicy) -> KVState:
        return policy.new_state(self.cfg.visibility)

    def visible(self, policy: KVPolicy) -> VisibilityRule:
        return policy.restricted(self.cfg.visibility)

    def split_heads(self, x: Float[Tensor, "B T HC"]) -> Float[Tensor, "B H T C"]:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def attend(self, q: Float[Tensor, "B H Q C"], kv: KV, context: AttentionContext) -> Float[Tensor, "B Q D"]:
        return self.out(self.kernel(q, kv, context)(self, q, kv, context).transpose(1, 2).flatten(-2))

    def kernel(self, q: Tensor, kv: KV, context: AttentionContext) -> "Kernel":
        """Return the kernel to use: ``observed`` while hooks listen, else the fastest one."""
        return observed if self.observed else self.fastest_kernel(q, kv, context)

    def fastest_kernel(self, q: Tensor, kv: KV, context: AttentionContext) -> "Kernel":
        """Return the fastest kernel that computes this attention exactly."""
        if not (self.scorer.fusable and context.position_effect.fusable):
            return explicit
        if self.dropout_rate == 0 and not context.position_effect.biased and kernels.supports_attention(q, *kv):
            return flash
        return explicit if explicit_is_faster(q, kv.k, self.dropout_rate) else fused

    @property
    def dropout_rate(self) -> float:
        """Dropout probability in force; 0 outside training."""
        return self.cfg.dropout if self.training else 0.0

    @property
    def observed(self) -> bool:
        """True while a hook listens to ``scores`` or ``weights``."""
        return not (is_plain(self.scores, nn.Identity) and is_plain(self.weights, nn.Identity))


# ---- kernels: fast ones and their slow twin ---------------------------------------------------------

Kernel = Callable[[Attention, Tensor, KV, AttentionContext], Tensor]
"""Queries (B, H, Q, C), keys and values -> weighted sums of values (B, H, Q, C)."""


def flash(attention: Attention, q: Tensor, kv: KV, context: AttentionContext) -> Float[Tensor, "B H Q C"]:
    """Attend by our C kernel, for training on CPUs: skips masked blocks and never stores the weights."""
    ((q, k),) = context.position_effect.parts(q, kv.k)
    return kernels.FlashFunction.apply(q, k, kv.v, *context.mask, attention.scorer.scale)


def fused(attention: Attention, q: Tensor, kv: KV, context: AttentionContext) -> Float[Tensor, "B H Q C"]:
    """Attend by PyTorch's kernel. It never stores the weights, so hooks on them cannot run."""
    ((q, k),) = context.position_effect.parts(q, kv.k)
    mask, causal = context.mask.allowed, context.mask.causal
    bias = context.position_effect.bias(q, attention.scorer.scale)
    if bias is not None:
        dense = context.mask.dense(q.shape[2], k.shape[2], q.device)
        mask, causal = bias if dense is None else bias.masked_fill(~dense, float("-inf")), False
    return F.scaled_dot_product_attention(
        q,
        k,
        kv.v,
        mask,
        attention.dropout_rate,
        causal,
        scale=attention.scorer.scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )


def explicit(attention: Attention, q: Tensor, kv: KV, context: AttentionContext) -> Float[Tensor, "B H Q C"]:
    """Attend step by step: for what a fused kernel cannot do, and where it is faster."""
    scores = position_scores(attention, q, kv.k, context.position_effect)
    weights = dropout(masked_softmax(scores, context.mask), attention.dropout_rate)
    return weighted_values(weights, kv.v, context.position_effect)


def observed(attention: Attention, q: Tensor, kv: KV, context: AttentionContext) -> Float[Tensor, "B H Q C"]:
    """Show the scores and weights of ``explicit`` to hooks. The output is that of the usual kernel, to the bit, unless
    a hook replaced one of them."""
    scores = position_scores(attention, q, kv.k, context.position_effect)
    shown_scores = attention.scores(scores)
    weights = masked_softmax(shown_scores, context.mask)
    shown_weights = attention.weights(weights)
    usual = attention.fastest_kernel(q, kv, context)
    kept = all(a is b or torch.equal(a, b) for a, b in ((shown_scores, scores), (shown_weights, weights)))
    if kept and usual is not explicit:
        return usual(attention, q, kv, context)
    return weighted_values(dropout(shown_weights, attention.dropout_rate), kv.v, context.position_effect)


def position_scores(
    attention: Attention, q: Float[Tensor, "B H Q C"], k: Float[Tensor, "B G K C"], position_effect: PositionEffect
) -> Float[Tensor, "B H Q K"]:
    """Return the scores of all pairs, with the effect of positions."""
    parts = [attention.scorer.scores(q_part, k_part) for q_part, k_part in position_effect.parts(q, k)]
    scores = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    bias = position_effect.bias(q, attention.scorer.scale)
    return scores if bias is None else scores + bias


def weighted_values(
    weights: Float[Tensor, "B H Q K"], v: Float[Tensor, "B G K C"], position_effect: PositionEffect
) -> Float[Tensor, "B H Q C"]:
    """Return the weighted sums of values, with the effect of positions."""
    (B, H, Q, _), (_, G, K, _) = weights.shape, v.shape
    heads = torch.bmm(weights.reshape(B * G, H // G * Q, K), v.reshape(B * G, K, -1)).view(B, H, Q, -1)
    of_distances = position_effect.values(weights)
    return heads if of_distances is None else heads + of_distances


def masked_softmax(scores: Float[Tensor, "B H Q K"], mask: AttentionMask) -> Float[Tensor, "B H Q K"]:
    """Return the softmax over the keys that a query sees; zeros where it sees none."""
    if elementwise.supports(scores) and elementwise.supports_type(scores):
        return elementwise.SoftmaxFunction.apply(scores, mask.allowed, mask.causal)
    allowed = mask.dense(scores.shape[-2], scores.shape[-1], scores.device)
    if allowed is not None:
        scores = scores + additive_mask(allowed, scores.dtype)
    weights = softmax(scores)
    if allowed is not None and not mask.causal:
        weights = weights * allowed.any(dim=-1, keepdim=True).to(weights.dtype)
    return weights


def additive_mask(allowed: Bool[Tensor, "*B K"], dtype: torch.dtype) -> Float[Tensor, "*B K"]:
    """Return the term to add to scores: 0, and where masked half the lowest number of ``dtype``.

    Half, so that the sum stays finite: a row that sees nothing must become zeros, not NaN.
    """
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min / 2)


VECTOR = 16
"""Largest number of float32 values in a vector register of a CPU."""


def softmax(scores: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """Return the softmax over keys, with short rows padded on CPUs.

    PyTorch's CPU kernels process rows shorter than a vector register one number at a time, which takes ten times as
    long forward and backward. Padding avoids that; bfloat16 rows that are padded become float32.
    """
    exact = torch.promote_types(scores.dtype, torch.float32)
    if torch.compiler.is_compiling() or scores.device.type != "cpu":
        return scores.softmax(dim=-1)
    keys, long_enough = scores.shape[-1], VECTOR * exact.itemsize // scores.dtype.itemsize
    if keys >= long_enough:
        return scores.softmax(dim=-1)
    wide = F.pad(scores.to(exact), (0, max(0, VECTOR - keys)), value=float("-inf"))
    return wide.softmax(dim=-1)[..., :keys].to(scores.dtype)


FEW_QUERIES = 8
"""Queries up to which ``explicit`` is faster than PyTorch's kernel on CPUs, outside training."""


def explicit_is_faster(q: Tensor, k: Tensor, rate: float) -> bool:
    """Return whether ``explicit`` beats PyTorch's kernel here, as measured in benchmarks/attention_kernels.py.

    PyTorch's kernel for CPUs has no dropout, is slow backward in bfloat16 over short texts (up to half of a layer's
    time), and takes 1.5 to 2 times as long over the few queries of a decoding step. Otherwise it is as fast or faster.
    """
    if torch.compiler.is_exporting() or q.device.type != "cpu":
        return False
    for_all_lengths = torch.compiler.is_compiling()  # one compiled program serves every length
    if torch.is_grad_enabled() and q.requires_grad:
        return rate > 0 or (q.dtype == torch.bfloat16 and (for_all_lengths or k.shape[2] <= 256))
    return not for_all_lengths and q.shape[2] <= FEW_QUERIES
