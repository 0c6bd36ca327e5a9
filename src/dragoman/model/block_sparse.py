"""Block-sparse attention: exact on what a sparse pattern shows, with memory linear in the length of a text.

A row of tokens becomes N blocks of b slots. Each block of queries gathers the blocks of keys that may hold something
it sees (``masks/sparse.py``) and the keys of all global tokens, and attends to these alone, by the kernels of
``attention.py``: no matrix of tokens x tokens is ever made. Long texts go through in pieces that are computed again in
the backward pass, so that what is gathered never takes more than ``PIECE`` keys at a time.

While decoding from a cache, over texts as short as what a block gathers, and where someone listens to the weights, the
same attention is computed with the pattern as a mask.

B batch, T tokens, S slots (whole blocks), N blocks of b slots, V gathered keys of a block, M global tokens, H query
heads, G key/value heads, C channels of one head, W width of all heads. A first dimension of 1 applies to every row.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.attention import Attention, AttentionConfig, AttentionContext
from dragoman.model.caches.state import KV, KVPolicy, LayerState, VisibleKeys
from dragoman.model.dropout import DropoutRate
from dragoman.model.exact import overrides
from dragoman.model.masks.sparse import SparsePattern
from dragoman.model.masks.token_blocks import TokenBlocks, take_rows
from dragoman.model.masks.visibility import AttentionMask, Causal, Full, VisibilityRule, build_self_mask
from dragoman.model.mixer import MixerConfig
from dragoman.model.norm import NoNorm, Norm
from dragoman.model.positions.effect import PositionEffect, RelativeScheme
from dragoman.model.positions.position import RelativePosition
from dragoman.model.positions.rotary import Rotary
from dragoman.model.positions.tokens import Positions
from dragoman.model.scorer import AnyScorer, ScaledDot

PIECE = 2**15
"""Most keys that are gathered at a time, counted over all rows; a longer text goes through in several pieces."""
HEAD_CHANNELS = 64
"""Channels of one head where the number of heads is not given."""

# ---- configuration --------------------------------------------------------------------------------


@config
class SparseAttentionConfig(MixerConfig):
    """Fields that all sparse attention has."""

    heads: PositiveInt | None = None
    """Number of query heads H; None for one for every 64 channels of the width."""
    kv_heads: PositiveInt | None = None
    """Number of key/value heads G: None for H (multi-head), 1 for multi-query, in between for grouped-query."""
    head_dim: PositiveInt | None = None
    """Channels of one head C; None for width / H."""
    position: RelativePosition = Rotary()
    scorer: AnyScorer = ScaledDot()
    qk_norm: Norm = NoNorm()
    """Norm on each head's queries and keys, before positions."""
    bias: bool = False
    """Bias on queries, keys and values, and on the output."""
    dropout: DropoutRate = 0.0
    """Dropout on the attention weights."""
    causal: bool = True
    """See only the token itself and earlier ones; false: both ways, for encoders."""

    def attention(self, dim: int) -> AttentionConfig:
        """Return the attention that this is, but for the pattern: causal, or full.

        Raises:
            ConfigError: sizes that do not fit; the message opens with the field.
        """
        return AttentionConfig(
            heads=resolve_heads(self.heads, dim),
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            position=self.position,
            visibility=Causal() if self.causal else Full(),
            scorer=self.scorer,
            qk_norm=self.qk_norm,
            bias=self.bias,
            dropout=self.dropout,
        )

    def build_position(self, dim: int) -> RelativeScheme:
        return self.attention(dim).build_position(dim)

    def position_key(self, dim: int) -> Hashable:
        return self.attention(dim).position_key(dim)

    @property
    def needs_grid(self) -> bool:
        return getattr(self.position, "needs_grid", False)

    def check_decoder(self) -> None:
        if not self.causal:
            raise ConfigError("causal: a decoder must not see what it is to predict: only true fits here")


def resolve_heads(heads: int | None, dim: int) -> int:
    """Resolve None to one head for every ``HEAD_CHANNELS`` of the width, or the next smaller number that divides it."""
    if heads is not None:
        return heads
    return next(count for count in range(max(1, dim // HEAD_CHANNELS), 0, -1) if dim % count == 0)


# ---- what a forward pass shares -------------------------------------------------------------------


class SparseContext:
    """Positions, mask and plan of one forward, shared by all layers of equal pattern and positions."""

    def __init__(
        self, new: Positions, seen: VisibleKeys, scheme: RelativeScheme, dtype: torch.dtype, plan: "BlockPlan | None"
    ):
        self.new, self.seen, self.scheme, self.dtype, self.plan = new, seen, scheme, dtype, plan
        self.retained = seen.retained
        self._dense = None if plan is not None else self._masked()
        self.rotation: PositionEffect
        """Effect of positions on queries and new keys: only its ``rotate`` is used."""
        if self._dense is not None:
            self.rotation = self._dense.position_effect
        else:
            self.rotation = scheme.effect(new, new.select_columns(slice(0, 1)), dtype)

    @property
    def dense(self) -> AttentionContext:
        """Context of attention with the pattern as a mask."""
        return self._masked() if self._dense is None else self._dense

    def _masked(self) -> AttentionContext:
        mask = build_self_mask(self.seen.visibility, self.new, self.seen.positions)
        return AttentionContext(mask, self.scheme.effect(self.new, self.seen.positions, self.dtype), self.retained)


class BlockPlan:
    """Keys that each block of queries gathers in one forward."""

    def __init__(self, pattern: SparsePattern, positions: Positions, scheme: RelativeScheme, dtype: torch.dtype):
        self.pattern, self.scheme, self.dtype = pattern, scheme, dtype
        self.slots = slots = TokenBlocks.of(positions, pattern.block_size, aligned=pattern.aligned)
        relative = pattern.key_blocks(slots.number, slots.text_blocks)  # (#B, N, V / b)
        exists = (relative >= 0) & (relative < slots.text_blocks[:, :, None])
        self.exists: Bool[Tensor, "#B N V"] = exists
        self.blocks: Int[Tensor, "#B N V"] = torch.where(exists, relative + slots.first[:, :, None], 0)
        self.globals, self.globals_exist = self._globals()
        one = positions.select_columns(slice(0, 1))
        effect = scheme.effect(one, one, dtype)
        self.has_effect = overrides(effect, PositionEffect, "parts", "bias", "values")
        """True where positions act on the scores, and not on queries and keys alone."""

    def _globals(self) -> tuple[Int[Tensor, "#B M"] | None, Bool[Tensor, "#B M"] | None]:
        """Return the slots of the global tokens, and which of them exist."""
        pos, keep, segment = self.slots.positions[:3]
        S = pos.shape[1]
        listed = self.pattern.global_positions(self.slots.length[:, :1], S)
        if listed is None or not listed.shape[1]:
            return None, None
        if segment is None or pos.device.type == "meta":  # slots are positions
            exist = (listed >= 0) & (listed < self.slots.length[:, :1])
            return listed.clamp(0, S - 1), exist
        chosen = self.pattern.is_global(pos, self.slots.length)
        if keep is not None:
            chosen = chosen & keep
        most = int(chosen.sum(dim=1).max())
        if not most:
            return None, None
        where = torch.argsort(~chosen, dim=1, stable=True)[:, :most]
        return where, chosen.gather(1, where)

    def attend(
        self, attention: Attention, q: Float[Tensor, "B H T C"], kv: KV, of_globals: tuple[Tensor, KV] | None = None
    ) -> Float[Tensor, "B T W"]:
        """Attend from all tokens to all tokens that the pattern shows them.

        Args:
            attention: layer whose scorer, dropout and kernels are used.
            q: queries, with positions.
            kv: keys, with positions, and values of the same tokens.
            of_globals: queries, keys and values for what global tokens see, where they have their own.
        """
        queries, keys, values = (self.slots.split(t) for t in (q, *kv))
        N, blocks = queries.shape[1], self.blocks.shape[2] * self.slots.block
        gathered = blocks + (0 if self.globals is None else self.globals.shape[1])
        found = [
            piece(self._attend_blocks, attention, queries, keys, values, start, end, last=only)
            for start, end, only in pieces(N, len(q) * gathered)
        ]
        y = (found[0] if len(found) == 1 else torch.cat(found, dim=1)).flatten(1, 2)  # (B, S, H, C)
        if self.globals is not None and self.pattern.globals_attend:
            if of_globals is not None:
                own, (k, v) = of_globals
                queries, keys, values = (self.slots.split(t) for t in (own, k, v))
            y = self._with_globals(attention, y, *(t.flatten(1, 2) for t in (queries, keys, values)))
        return self.slots.merge(y, q.shape[2]).flatten(-2)

    def _attend_blocks(
        self, attention: Attention, queries: Tensor, keys: Tensor, values: Tensor, start: int, end: int
    ) -> Float[Tensor, "B n b H C"]:
        """Attend from the blocks ``start`` to ``end`` of all rows."""
        B, n, b = len(queries), end - start, self.slots.block
        q = queries[:, start:end].flatten(0, 1).transpose(1, 2)  # (B n, H, b, C)
        columns, visible = self._columns(start, end)
        context = self._context(start, end, columns, visible, B)
        k, v = (self._gather(t, columns, start, end) for t in (keys, values))
        y = attention.kernel(q, KV(k, v), context)(attention, q, KV(k, v), context)
        return y.transpose(1, 2).reshape(B, n, b, *y.shape[1:2], y.shape[-1])

    def _columns(self, start: int, end: int) -> tuple[Int[Tensor, "#B n V"], Bool[Tensor, "#B n V"]]:
        """Return the slots of the keys that these blocks gather, and which of them exist; none comes twice."""
        b, blocks, exists = self.slots.block, self.blocks[:, start:end], self.exists[:, start:end]
        columns = (blocks[..., None] * b + torch.arange(b, device=blocks.device)).flatten(2)
        exists = exists.repeat_interleave(b, dim=2)
        if self.globals is None or self.globals_exist is None:
            return columns, exists
        first, chosen = self.slots.first[:, start:end, None], self.globals[:, : self._globals_before(end)]
        M = chosen.shape[1]
        near = ((chosen // b)[:, None, None, :] == blocks[..., None]) & self.exists[:, start:end, :, None]
        seen = self.globals_exist[:, None, :M] & ~near.any(dim=2)
        if self.pattern.aligned:  # those of the same text
            own = chosen[:, None, :] // b
            seen = seen & (own >= first) & (own < first + self.slots.text_blocks[:, start:end, None])
        rows = max(len(columns), len(chosen))
        far = chosen[:, None, :].expand(rows, end - start, M)
        return (
            torch.cat([columns.expand(rows, -1, -1), far], dim=2),
            torch.cat([exists.expand(rows, -1, -1), seen.expand(rows, -1, -1)], dim=2),
        )

    def _globals_before(self, end: int) -> int:
        """Return how many of the global tokens the blocks before ``end`` may see; all where that is not known here."""
        assert self.globals is not None
        fixed = torch.compiler.is_compiling() or self.globals.device.type != "cpu"  # no waiting for values
        if fixed or not self.pattern.causal or self.slots.positions.segment is not None:
            return self.globals.shape[1]
        return int((self.globals[0] < end * self.slots.block).sum())

    def _gather(self, x: Float[Tensor, "B N b G C"], columns: Tensor, start: int, end: int) -> Tensor:
        """Return the keys or values (B n, G, V, C) that these blocks gather."""
        B, N, b, G, C = x.shape
        near = (self.blocks[:, start:end] + torch.arange(B, device=x.device)[:, None, None] * N).flatten()
        found = x.reshape(B * N, b * G * C).index_select(0, near).view(B, end - start, -1, G, C)
        if self.globals is not None:
            far = take_rows(x.flatten(1, 2), self.globals[:, : self._globals_before(end)])
            found = torch.cat([found, far[:, None].expand(-1, end - start, -1, -1, -1)], dim=2)
        return found.flatten(0, 1).transpose(1, 2)

    def _context(self, start: int, end: int, columns: Tensor, exists: Tensor, B: int) -> AttentionContext:
        """Return the mask of these blocks, each a row of its own, and the effect of positions on their scores."""
        positions = self.slots.positions
        b, rows = self.slots.block, max(len(columns), len(positions.pos))
        q = positions.each(lambda t: t[:, start * b : end * b].expand(rows, -1).reshape(-1, b))
        flat = columns.expand(rows, -1, -1).flatten(1)
        k = positions.each(lambda t: t.expand(rows, -1).gather(1, flat).view(len(q.pos), -1))
        mask = allowed_pairs(self.pattern.within_blocks, q, k) & exists.expand(rows, -1, -1).reshape(
            len(q.pos), 1, 1, -1
        )
        if rows < B:
            mask = mask.unflatten(0, (1, -1)).expand(B, -1, -1, -1, -1).flatten(0, 1)
        effect = PositionEffect()
        if self.has_effect:
            q, k = (_repeat_rows(p, B // rows) for p in (q, k))
            effect = self.scheme.effect(q, k, self.dtype)
        return AttentionContext(AttentionMask(mask), effect, None)

    def _with_globals(self, attention: Attention, y: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return ``y`` (B, S, H, C) with what the global tokens see in its place: every token of their text."""
        assert self.globals is not None and self.globals_exist is not None
        queries, S = take_rows(q, self.globals), y.shape[1]
        found = [
            piece(self._attend_all, attention, queries, k, v, start, end, last=only)
            for start, end, only in pieces(self.globals.shape[1], len(q) * S // 8)  # a mask and few scores
        ]
        whole = torch.cat(found, dim=1)
        chosen = torch.where(self.globals_exist, self.globals, S)[:, :, None, None]  # those that do not exist: behind
        wide = F.pad(y, (0, 0, 0, 0, 0, 1))
        return wide.scatter(1, chosen.expand(len(y), -1, *y.shape[2:]), whole.to(y.dtype))[:, :S]

    def _attend_all(
        self, attention: Attention, queries: Tensor, keys: Tensor, values: Tensor, start: int, end: int
    ) -> Float[Tensor, "B m H C"]:
        """Attend from the global tokens ``start`` to ``end`` to every token of their text."""
        assert self.globals is not None
        positions, chosen = self.slots.positions, self.globals[:, start:end]
        rows = max(len(chosen), len(positions.pos))
        q = positions.each(lambda t: t.expand(rows, -1).gather(1, chosen.expand(rows, -1)))
        mask = AttentionMask(allowed_pairs(self.pattern.order, q, positions))
        effect = PositionEffect()
        if self.has_effect:
            effect = self.scheme.effect(q, positions, self.dtype)
        context = AttentionContext(mask, effect, None)
        heads, kv = queries[:, start:end].transpose(1, 2), KV(keys.transpose(1, 2), values.transpose(1, 2))
        return attention.kernel(heads, kv, context)(attention, heads, kv, context).transpose(1, 2)


def allowed_pairs(rule: VisibilityRule, q: Positions, k: Positions) -> Bool[Tensor, "#B 1 Q K"]:
    """Return what ``rule`` allows by its predicate, within texts and outside padding, whatever stands where."""
    allowed = VisibilityRule.within_text(rule, q, k).allowed
    assert allowed is not None
    return allowed


def _repeat_rows(positions: Positions, times: int) -> Positions:
    return positions if times == 1 else positions.each(lambda t: t.repeat(times, 1))


def pieces(count: int, keys_of_one: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, end, whether it is the only one) of pieces of at most ``PIECE`` keys; one while compiling."""
    step = count if torch.compiler.is_compiling() else max(1, min(count, PIECE // max(1, keys_of_one)))
    if step >= count:
        yield 0, count, True
        return
    for start in range(0, count, step):
        yield start, min(start + step, count), False


def piece(compute: Callable[..., Tensor], *given: Any, last: bool) -> Tensor:
    """Compute a piece; unless it is the only one, compute it again in the backward pass instead of keeping it."""
    if last or not torch.is_grad_enabled():
        return compute(*given)
    return checkpoint(compute, *given, use_reentrant=False)


# ---- the layer ------------------------------------------------------------------------------------


class SparseAttention(Attention):
    """Self-attention with a sparse pattern as its visibility."""

    def __init__(self, cfg: SparseAttentionConfig, dim: int):
        super().__init__(cfg.attention(dim), dim)
        self.visibility = cfg.visibility

    @staticmethod
    def context(  # pyright: ignore[reportIncompatibleMethodOverride]
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> SparseContext:
        return sparse_context(BlockPlan, new, seen, scheme, dtype)

    def forward(self, x: Float[Tensor, "B T D"], context: SparseContext, state: Any) -> Float[Tensor, "B T D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Attend from ``x`` to ``x`` and to the keys in ``state``, which are extended."""
        q, (k, v) = self.project(x)
        seen = state.extend(KV(context.rotation.rotate(k), v), context.retained)
        return self.mix(context.rotation.rotate(q), seen, context)

    def mix(self, q: Float[Tensor, "B H T C"], seen: KV, context: SparseContext) -> Float[Tensor, "B T D"]:
        if context.plan is None or self.observed:
            return self.attend(q, seen, context.dense)
        return self.out(context.plan.attend(self, q, seen))

    def new_state(self, policy: KVPolicy) -> LayerState:  # pyright: ignore[reportIncompatibleMethodOverride]
        return policy.new_state(self.visibility)

    def visible(self, policy: KVPolicy) -> VisibilityRule:
        return policy.restricted(self.visibility)


def sparse_context(
    plan: type[BlockPlan], new: Positions, seen: VisibleKeys, scheme: RelativeScheme, dtype: torch.dtype
) -> SparseContext:
    """Return the context of one forward, with a plan where attention goes by blocks."""
    visibility = seen.visibility
    if not isinstance(visibility, SparsePattern) or not goes_by_blocks(visibility, new, seen.positions):
        return SparseContext(new, seen, scheme, dtype, None)
    return SparseContext(new, seen, scheme, dtype, plan(visibility, seen.positions, scheme, dtype))


def goes_by_blocks(pattern: SparsePattern, new: Positions, seen: Positions) -> bool:
    """Return whether to attend by blocks: nothing comes from a cache, and blocks gather less than the whole text.

    A compiler is given the form for all lengths. It cannot be given packed texts by blocks of their own, whose number
    depends on the texts.
    """
    T = new.pos.shape[1]
    if torch.compiler.is_compiling():
        return seen.segment is None or not (pattern.aligned or pattern.has_globals)
    return seen.pos.shape[1] == T and gathered_keys(pattern, T) < T


def gathered_keys(pattern: SparsePattern, length: int) -> int:
    """Return how many keys a block of queries gathers in a text of that length."""
    blocks = torch.arange(-(-length // pattern.block_size))[None]
    listed = pattern.global_positions(torch.tensor([[length]]), length)
    near = pattern.key_blocks(blocks, torch.full_like(blocks, blocks.shape[1])).shape[2]
    return near * pattern.block_size + (0 if listed is None else listed.shape[1])
