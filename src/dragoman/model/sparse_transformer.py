"""Attention of the Sparse Transformer, strided and fixed (Child et al., arXiv:1904.10509).

With a stride l near the square root of the length T, each token sees about 2 sqrt(T) others, and reaches any other in
two layers:

- strided: those less than l positions away, and those a multiple of l away;
- fixed: its own block of l tokens, and the last ``summary`` tokens of every block.

Each is the union of the paper's two sets A(1) and A(2), which all heads attend to together (the "merged head" of its
section 4.3). In a decoder both look back only. Memory and time grow as T sqrt(T) at best; training computes long texts
again in the backward pass, as the authors did, and stores no weights.

B batch, S slots in N blocks of l, T tokens, H query heads, G key/value heads, C channels of one head, W width of all
heads, V keys of a window, n blocks of queries of a piece, K keys.
"""

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.attention import Attention, AttentionMask, masked_softmax, position_scores, weighted_values
from dragoman.model.block_sparse import (
    BlockPlan,
    SparseAttention,
    SparseAttentionConfig,
    SparseContext,
    piece,
    pieces,
    sparse_context,
)
from dragoman.model.caches.state import KV, VisibleKeys
from dragoman.model.dropout import dropout
from dragoman.model.masks.sparse import SparsePattern
from dragoman.model.masks.visibility import columns_still_visible
from dragoman.model.positions.effect import PositionEffect, RelativeScheme
from dragoman.model.positions.tokens import Positions

# ---- patterns -------------------------------------------------------------------------------------


@config
class StridedPattern(SparsePattern):
    """A window of ``stride`` tokens, and every ``stride``-th token beyond."""

    stride: int
    causal: bool

    aligned = True

    @property
    def block_size(self) -> int:
        return self.stride

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        back = q.pos[:, :, None] - k.pos[:, None, :]
        seen = (back.abs() < self.stride) | (back % self.stride == 0)
        return seen & (back >= 0) if self.causal else seen

    def key_blocks(self, index: Int[Tensor, "#B N"], count: Int[Tensor, "#B N"]) -> Int[Tensor, "#B N V"]:
        reach = min(1, self.stride - 1)
        return self.window_blocks(index, reach, 0 if self.causal else reach)


@config
class FixedPattern(SparsePattern):
    """The own block of ``stride`` tokens, and the last ``summary`` tokens of every block."""

    stride: int
    summary: int
    causal: bool

    aligned = True

    @property
    def has_globals(self) -> bool:
        return True

    @property
    def block_size(self) -> int:
        return self.stride

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        own, other = q.pos // self.stride, k.pos // self.stride
        seen = (own[:, :, None] == other[:, None, :]) | self.is_global(k.pos, k.pos)[:, None, :]
        return seen & (q.pos[:, :, None] >= k.pos[:, None, :]) if self.causal else seen

    def key_blocks(self, index: Int[Tensor, "#B N"], count: Int[Tensor, "#B N"]) -> Int[Tensor, "#B N V"]:
        return index[:, :, None]

    def global_positions(self, length: Int[Tensor, "#B 1"], slots: int) -> Int[Tensor, "#B M"]:
        ends = torch.arange(self.stride, slots + self.stride, self.stride, device=length.device)
        return (ends[:, None] - torch.arange(1, self.summary + 1, device=length.device)).flatten()[None]

    def is_global(self, pos: Int[Tensor, "#B S"], length: Int[Tensor, "#B S"]) -> Bool[Tensor, "#B S"]:
        return (pos >= 0) & (pos % self.stride >= self.stride - self.summary)

    def retained(self, seen: Positions, rewindable: int) -> Int[Tensor, " K"] | None:
        begin = (seen.pos[:, -1:] + 1 - rewindable) // self.stride * self.stride  # of the earliest block to go on
        return columns_still_visible((seen.pos >= begin) | self.is_global(seen.pos, seen.pos), seen, rewindable)


# ---- configuration --------------------------------------------------------------------------------


@config
class StridedAttention(SparseAttentionConfig):
    """Strided attention of the Sparse Transformer (arXiv:1904.10509), for data with a period, such as images."""

    stride: PositiveInt
    """Distance l between the tokens seen beyond the window, and tokens in the window: about the square root of the
    length."""

    @property
    def visibility(self) -> StridedPattern:  # pyright: ignore[reportIncompatibleVariableOverride]
        return StridedPattern(stride=self.stride, causal=self.causal)

    def build(self, dim: int) -> "StridedAttentionLayer":
        return StridedAttentionLayer(self, dim)


@config
class FixedAttention(SparseAttentionConfig):
    """Fixed attention of the Sparse Transformer (arXiv:1904.10509), for texts."""

    stride: PositiveInt
    """Tokens in a block l: about the square root of the length."""
    summary: PositiveInt = 8
    """Number of last tokens c of each block that every later token sees."""

    @property
    def visibility(self) -> FixedPattern:  # pyright: ignore[reportIncompatibleVariableOverride]
        return FixedPattern(stride=self.stride, summary=self.summary, causal=self.causal)

    def build(self, dim: int) -> SparseAttention:
        if self.stride % self.summary:
            raise ConfigError(
                f"summary: {self.summary} tokens do not divide a block of {self.stride}: choose a divisor of the stride"
            )
        return SparseAttention(self, dim)


# ---- strided attention by blocks ------------------------------------------------------------------


class StridedAttentionLayer(SparseAttention):
    """Attention to a window and to every stride-th token."""

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> SparseContext:
        return sparse_context(StridedPlan, new, seen, scheme, dtype)


class StridedPlan(BlockPlan):
    """Blocks written below each other as rows: a token sees the window before it and its own column."""

    def attend(
        self, attention: Attention, q: Float[Tensor, "B H T C"], kv: KV, of_globals: tuple[Tensor, KV] | None = None
    ) -> Float[Tensor, "B T W"]:
        queries, keys, values = (self.slots.split(t) for t in (q, *kv))
        N, near = queries.shape[1], self.blocks.shape[2] * self.slots.block
        found = [
            piece(self._attend_rows, attention, queries, keys, values, start, end, last=only)
            for start, end, only in pieces(N, len(q) * (near + N * self.slots.block // 8))
        ]
        y = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        return self.slots.merge(y.flatten(1, 2), q.shape[2]).flatten(-2)

    def _attend_rows(
        self, attention: Attention, queries: Tensor, keys: Tensor, values: Tensor, start: int, end: int
    ) -> Float[Tensor, "B n l H C"]:
        (B, _, l, *_), n = queries.shape, end - start
        columns, exists = self._columns(start, end)
        context = self._context(start, end, columns, exists, B)
        q = queries[:, start:end]
        k, v = (self._gather(t, columns, start, end) for t in (keys, values))
        near = position_scores(attention, q.flatten(0, 1).transpose(1, 2), k, context.position_effect)
        last = end if self.pattern.causal else keys.shape[1]
        k_far, v_far = (t[:, :last].transpose(1, 2).flatten(0, 1).transpose(1, 2) for t in (keys, values))
        effect = self._effect_of_columns(start, end, last, B)
        far = position_scores(attention, q.transpose(1, 2).flatten(0, 1).transpose(1, 2), k_far, effect)
        far = far.unflatten(0, (B, l)).permute(0, 3, 2, 1, 4).flatten(0, 1)  # (B l, H, n, K) -> (B n, H, l, K)
        assert context.mask.allowed is not None
        allowed = self._allowed_columns(start, end, last)
        allowed = allowed.expand(B, -1, -1, -1).reshape(B * n, 1, l, last)
        mask = torch.cat([context.mask.allowed.expand(-1, -1, l, -1), allowed], dim=3)
        weights = masked_softmax(torch.cat([near, far], dim=3), AttentionMask(mask))
        weights = dropout(weights, attention.dropout_rate)
        near, far = weights.split([near.shape[3], last], dim=3)
        far = far.unflatten(0, (B, n)).permute(0, 3, 2, 1, 4).flatten(0, 1)  # back: (B l, H, n, K)
        y = weighted_values(near, v, context.position_effect).unflatten(0, (B, n)).transpose(2, 3)  # (B, n, l, H, C)
        return y + weighted_values(far, v_far, effect).unflatten(0, (B, l)).permute(0, 3, 1, 2, 4)

    def _allowed_columns(self, start: int, end: int, last: int) -> Bool[Tensor, "#B n l K"]:
        """Return which blocks' tokens each token of the blocks ``start`` to ``end`` sees in its own column."""
        slots = self.slots
        other = torch.arange(last, device=slots.first.device)
        first, count = slots.first[:, start:end, None], slots.text_blocks[:, start:end, None]
        own = torch.arange(start, end, device=other.device)[None, :, None]
        reach = min(1, slots.block - 1)
        seen = (other >= first) & (other < (own if self.pattern.causal else first + count))
        seen = seen & ((own - other).abs() > reach)  # the nearer ones are among the gathered keys
        if slots.positions.keep is None:
            return seen[:, :, None].expand(-1, -1, slots.block, -1)
        keep = slots.positions.keep.unflatten(1, (-1, slots.block))[:, :last].transpose(1, 2)  # (#B, l, K)
        return seen[:, :, None] & keep[:, None]

    def _effect_of_columns(self, start: int, end: int, last: int, B: int) -> PositionEffect:
        """Return the effect of positions on the scores within columns, (B l) of them."""
        if not self.has_effect:
            return PositionEffect()

        def columns(t: Tensor) -> Tensor:
            return t.unflatten(1, (-1, self.slots.block)).transpose(1, 2).expand(B, -1, -1).flatten(0, 1)

        whole = self.slots.positions.each(columns)
        return self.scheme.effect(
            whole.select_columns(slice(start, end)), whole.select_columns(slice(0, last)), self.dtype
        )
