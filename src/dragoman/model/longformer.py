"""Longformer attention: a window for every token, and a few global tokens (Beltagy et al., arXiv:2004.05150).

A token sees those less than ``window`` positions away. Global tokens see all tokens and are seen by all. Here they are
chosen by position, the first ones and every n-th, where the paper lets each task choose: so a decoder knows them, too.
In a decoder both are causal, and its cache holds the window and the first global tokens. Every n-th token sees all
before it, for which the cache must hold everything. With global tokens at fixed places memory and time grow linearly
with the text; with every n-th one memory does, and time in part with T x T / n.

B batch, T length, D width, H query heads, G key/value heads, C channels of one head, Q/K query and key lengths.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.block_sparse import SparseAttention, SparseAttentionConfig, SparseContext
from dragoman.model.caches.state import KV, KVPolicy, LayerState
from dragoman.model.caches.summary import JoinedState
from dragoman.model.linear import Linear
from dragoman.model.masks.sparse import SparsePattern, free_block_size
from dragoman.model.masks.visibility import columns_still_visible
from dragoman.model.positions.tokens import Positions


@config
class LongformerPattern(SparsePattern):
    """Tokens in a window, and global tokens."""

    window: int  # pyright: ignore[reportIncompatibleVariableOverride]
    """Positions from which on a token is no longer seen."""
    first: int
    """Number of first tokens that are global."""
    every: int | None
    """Tokens at multiples of this position are global; None for no others."""
    causal: bool

    globals_attend = True

    @property
    def has_globals(self) -> bool:
        return self.first > 0 or self.every is not None

    @property
    def block_size(self) -> int:
        return free_block_size(self.window)

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        back = q.pos[:, :, None] - k.pos[:, None, :]
        seen = back.abs() < self.window
        if self.has_globals:
            seen = seen | self.is_global(q.pos, q.pos)[:, :, None] | self.is_global(k.pos, k.pos)[:, None, :]
        return seen & (back >= 0) if self.causal else seen

    def key_blocks(self, index: Int[Tensor, "#B N"], count: Int[Tensor, "#B N"]) -> Int[Tensor, "#B N V"]:
        reach = -(-(self.window - 1) // self.block_size)
        return self.window_blocks(index, reach, 0 if self.causal else reach)

    def global_positions(self, length: Int[Tensor, "#B 1"], slots: int) -> Int[Tensor, "#B M"] | None:
        if not self.has_globals:
            return None
        found = torch.arange(self.first, device=length.device)
        if self.every is not None:
            begin = -(-self.first // self.every) * self.every
            found = torch.cat([found, torch.arange(begin, max(begin, slots), self.every, device=length.device)])
        return found[None]

    def is_global(self, pos: Int[Tensor, "#B S"], length: Int[Tensor, "#B S"]) -> Bool[Tensor, "#B S"]:
        chosen = (pos >= 0) & (pos < self.first)
        return chosen if self.every is None else chosen | ((pos >= 0) & (pos % self.every == 0))

    def retained(self, seen: Positions, rewindable: int) -> Int[Tensor, " K"] | None:
        if self.every is not None or not self.causal:
            return None  # the next global token sees everything
        near = seen.pos > seen.pos[:, -1:] + 1 - self.window - rewindable
        return columns_still_visible(near | self.is_global(seen.pos, seen.pos), seen, rewindable)


@config
class Longformer(SparseAttentionConfig):
    """Sliding window with global tokens (Longformer, arXiv:2004.05150)."""

    window: PositiveInt
    """A token sees those less than this many positions away: in a decoder as many as this, itself included. (The
    paper's window is both sides together: 512 there is 257 here.)"""
    global_first: NonNegativeInt = 1
    """Number of first tokens that are global."""
    global_every: PositiveInt | None = None
    """Tokens at multiples of this position are global, too; None for no others."""
    global_projections: bool = False
    """Queries, keys and values of their own for what global tokens see, as in the published models."""

    @property
    def visibility(self) -> LongformerPattern:  # pyright: ignore[reportIncompatibleVariableOverride]
        return LongformerPattern(
            window=self.window, first=self.global_first, every=self.global_every, causal=self.causal
        )

    def build(self, dim: int) -> "LongformerAttention":
        if self.global_every is not None and self.window < self.global_every:
            raise ConfigError(
                f"window: {self.window} tokens are fewer than the step of global tokens, so that some are in no window "
                f"of one: choose a window of {self.global_every} or more, or global_every of {self.window} or less"
            )
        if self.global_projections and not self.visibility.has_globals:
            raise ConfigError("global_projections: there are no global tokens: set global_first or global_every")
        return LongformerAttention(self, dim)


class LongformerAttention(SparseAttention):
    """Windowed attention, and that of the global tokens."""

    def __init__(self, cfg: Longformer, dim: int):
        super().__init__(cfg, dim)
        self.pattern, self.global_projections = cfg.visibility, cfg.global_projections
        if cfg.global_projections:
            H, G, C = self.cfg.heads, self.cfg.key_value_heads, self.head_dim
            self.global_q = Linear(dim, H * C, bias=cfg.bias)
            self.global_k = Linear(dim, G * C, bias=cfg.bias)
            self.global_v = Linear(dim, G * C, bias=cfg.bias)

    def forward(self, x: Float[Tensor, "B T D"], context: SparseContext, state: Any) -> Float[Tensor, "B T D"]:
        if not self.global_projections:
            return super().forward(x, context, state)
        near, far = state.parts
        rotate = context.rotation.rotate
        q, (k, v) = self.project(x)
        seen = near.extend(KV(rotate(k), v), context.retained)
        own_q, own_k, own_v = (self.split_heads(f(x)) for f in (self.global_q, self.global_k, self.global_v))
        own_q, own_k = self.scorer.project(self.q_norm(own_q)), self.k_norm(own_k)
        own = far.extend(KV(rotate(own_k), own_v), context.retained)
        q, own_q = rotate(q), rotate(own_q)
        if context.plan is not None and not self.observed:
            return self.out(context.plan.attend(self, q, seen, (own_q, own)))
        dense = context.dense
        far, near = (self.kernel(*given)(self, *given) for given in ((own_q, own, dense), (q, seen, dense)))
        chosen = self.pattern.is_global(context.new.pos, context.new.pos)[:, None, :, None]
        return self.out(torch.where(chosen, far, near).transpose(1, 2).flatten(-2))

    def new_state(self, policy: KVPolicy) -> LayerState:
        if not self.global_projections:
            return super().new_state(policy)
        return JoinedState(super().new_state(policy), super().new_state(policy))
