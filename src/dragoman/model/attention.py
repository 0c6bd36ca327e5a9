"""Attention over heads, one file, every variant: softmax(score(q, k)) v.

B batch, T length, D model width, H query heads, G key/value heads (G divides H), C channels of one head,
Q/K query and key lengths, S source length, N sentences (a multiple of rows reads each one: the beams of a search).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dragoman.config import ConfigError, config
from dragoman.model.dropout import dropout
from dragoman.model.norm import NoNorm, Norm
from dragoman.model.position import NoPosition, RelativePosition
from dragoman.model.relation import Relation, RelativeScheme
from dragoman.model.scorer import AnyScorer, ScaledDot
from dragoman.model.state import KV, KVPolicy, KVState
from dragoman.model.visibility import Causal, Sight, Visibility


class View(NamedTuple):
    """What layers need to know of one forward: computed once, used by all that share position and visibility."""

    sight: Sight
    relation: Relation
    real: Bool[Tensor, "B T"] | None
    """False on padding among the newest tokens; None when nothing is padded."""


@config
class AttentionConfig:
    heads: int
    """Query heads H."""
    kv_heads: int | None = None
    """Key/value heads G: None for H (multi-head), 1 for multi-query, between for grouped-query."""
    head_dim: int | None = None
    """Channels of one head C; None for width / H."""
    position: RelativePosition = NoPosition()
    visibility: Visibility = Causal()
    scorer: AnyScorer = ScaledDot()
    qk_norm: Norm = NoNorm()
    """On each head's queries and keys, before positions."""
    bias: bool = False
    dropout: float = 0.0
    """On the attention weights."""

    def channels(self, dim: int) -> int:
        if self.head_dim is None and dim % self.heads:
            raise ConfigError(f"heads: {self.heads} heads do not divide the width {dim}; set head_dim to choose freely")
        return self.head_dim or dim // self.heads

    def build(self, dim: int) -> "Attention":
        return Attention(self, dim)

    def build_position(self, dim: int) -> RelativeScheme:
        return self.position.build(self.heads, self.channels(dim))


class Attention(nn.Module):
    def __init__(self, cfg: AttentionConfig, dim: int):
        super().__init__()
        H, G, C = cfg.heads, cfg.kv_heads or cfg.heads, cfg.channels(dim)
        if H % G:
            raise ConfigError(f"kv_heads: {G} key/value heads do not divide {H} query heads")
        self.cfg, self.head_dim = cfg, C
        self.q = nn.Linear(dim, H * C, bias=cfg.bias)
        self.k = nn.Linear(dim, G * C, bias=cfg.bias)
        self.v = nn.Linear(dim, G * C, bias=cfg.bias)
        self.out = nn.Linear(H * C, dim, bias=cfg.bias)
        self.q_norm, self.k_norm = cfg.qk_norm.build(C), cfg.qk_norm.build(C)
        self.scorer = cfg.scorer.build(H, C)
        self.weights = nn.Identity()  # tap: (B, H, Q, K), seen only while something listens

    def forward(self, x: Float[Tensor, "B T D"], view: View, state: KVState) -> Float[Tensor, "B T D"]:
        """Attend from ``x`` to ``x`` and to what ``state`` remembers."""
        q = view.relation.rotate(self.q_norm(self.split(self.q(x))))
        k = view.relation.rotate(self.k_norm(self.split(self.k(x))))
        return self.attend(q, state.extend(KV(k, self.split(self.v(x)))), view)

    def read(self, x: Float[Tensor, "B T D"], view: View, source: KV) -> Float[Tensor, "B T D"]:
        """Attend from ``x`` to an encoded source of N sentences; rows of ``x`` come in groups of B / N, one each."""
        q, N = self.q_norm(self.split(self.q(x))), source.k.shape[0]
        if q.shape[0] == N:
            return self.attend(q, source, view)
        beams = q.shape[0] // N
        T = q.shape[2]
        together = q.unflatten(0, (N, beams)).transpose(1, 2).flatten(2, 3)  # (N, H, beams T, C): keys are read once
        out = self.attend(together, source, view)
        return out.unflatten(1, (beams, T)).flatten(0, 1)

    def key_value(self, memory: Float[Tensor, "B S D"]) -> KV:
        """An encoded source as ``read`` wants it."""
        return KV(self.k_norm(self.split(self.k(memory))), self.split(self.v(memory)))

    def new_state(self, policy: KVPolicy) -> KVState:
        return policy(self.cfg.visibility)

    def split(self, x: Float[Tensor, "B T HC"]) -> Float[Tensor, "B H T C"]:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def attend(self, q: Float[Tensor, "B H Q C"], kv: KV, view: View) -> Float[Tensor, "B Q D"]:
        listened = bool(self.weights._forward_hooks)
        kernel = explicit if listened or prefers_explicit(self, q, kv.k, view) else fused
        q = self.scorer.project(q)
        parts = view.relation.parts(q, kv.k)
        if len(parts) == 1:
            heads = kernel(self, parts[0][1], KV(parts[0][2], kv.v), view)
        else:
            dense = view.sight.dense(q.shape[2], kv.k.shape[2], q.device)
            heads = torch.cat([kernel(self, q_part, KV(k, kv.v), _narrow(view, dense, c)) for c, q_part, k in parts], 2)
        return self.out(heads.transpose(1, 2).flatten(-2))


def _narrow(view: View, mask: Tensor | None, columns: slice) -> View:
    return view._replace(sight=Sight(mask if mask is None or mask.shape[2] == 1 else mask[:, :, columns]))


# ---- kernels: a fast one and its slow twin ----------------------------------------------------------


def fused(attention: Attention, q: Tensor, kv: KV, view: View) -> Float[Tensor, "B H Q C"]:
    """PyTorch's kernel. Never stores the weights, so the tap stays silent."""
    mask, causal = view.sight.mask, view.sight.causal
    bias = view.relation.bias(q)
    if bias is not None:
        dense = view.sight.dense(q.shape[2], kv.k.shape[2], q.device)
        mask, causal = bias if dense is None else bias.masked_fill(~dense, float("-inf")), False
    share = attention.cfg.dropout if attention.training else 0.0
    return F.scaled_dot_product_attention(
        q, kv.k, kv.v, mask, share, causal, scale=attention.scorer.scale, enable_gqa=q.shape[1] != kv.k.shape[1]
    )


def explicit(attention: Attention, q: Tensor, kv: KV, view: View) -> Float[Tensor, "B H Q C"]:
    """The same, written out. Used when someone wants the weights, for scores that are no dot product, and on CPUs for
    short texts, where it is the faster one."""
    B, H, Q, _ = q.shape
    G, K = kv.k.shape[1], kv.k.shape[2]
    scores = attention.scorer.scores(q, kv.k)
    bias = view.relation.bias(q)
    if bias is not None:
        scores = scores + bias
    mask = view.sight.dense(Q, K, q.device)
    if mask is None:
        weights = scores.softmax(dim=-1)
    else:  # the lowest finite number, not -inf: a row that sees nothing must become zeros, not NaN
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)
        weights = weights * mask.any(dim=-1, keepdim=True)
    weights = attention.weights(weights)
    dropped = dropout(weights, attention.cfg.dropout) if attention.training else weights
    heads = torch.bmm(dropped.reshape(B * G, H // G * Q, K), kv.v.reshape(B * G, K, -1)).view(B, H, Q, -1)
    return heads + view.relation.values(dropped) if view.relation.needs_weights else heads


def prefers_explicit(attention: Attention, q: Tensor, k: Tensor, view: View) -> bool:
    return not attention.scorer.fusable or view.relation.needs_weights
