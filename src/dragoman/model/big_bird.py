"""BigBird attention: a window, global and random blocks (Zaheer et al., arXiv:2007.14062).

Texts are divided into blocks from their beginning. A block of queries sees the blocks around it, the global blocks,
and some blocks at random, drawn anew for each block of queries. Global blocks, the first ones and in encoders as many
last ones, see everything and are seen by everything. In a decoder all of this is causal.

The random blocks are a function of ``seed`` and of the block's place: the r blocks with the smallest hashes of (seed,
query block, key block) among those that are neither near nor global. So they are the same in every batch, in whatever
pieces a text is read, and after a run is resumed; in a decoder they do not depend on what comes later. All heads share
them (the published code draws for each head), and layers with other seeds have others.

N blocks, V key blocks, Q/K query and key lengths. A first dimension of 1 applies to every row of the batch.
"""

import torch
from jaxtyping import Bool, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.block_sparse import SparseAttention, SparseAttentionConfig
from dragoman.model.masks.sparse import SparsePattern
from dragoman.model.masks.visibility import VisibilityRule
from dragoman.model.positions.tokens import Positions

LAST = 2**62
"""Order of blocks that must not be chosen."""


@config
class BigBirdPattern(SparsePattern):
    """Blocks in a window, global blocks and random blocks."""

    block: int
    near: int
    """Blocks of the window on one side, the own block included."""
    global_blocks: int
    random_blocks: int
    seed: int
    causal: bool

    aligned = True
    globals_attend = True

    @property
    def has_globals(self) -> bool:
        return self.global_blocks > 0

    @property
    def block_size(self) -> int:
        return self.block

    @property
    def within_blocks(self) -> VisibilityRule:
        return self.order

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        length = _text_lengths(k)
        own, other, count = (t.clamp(min=0) // self.block for t in (q.pos, k.pos, length + self.block - 1))
        fixed = torch.compiler.is_compiling() or k.pos.device.type == "meta"  # no shape may depend on values
        blocks = -(-k.pos.shape[1] // self.block) if fixed else int(other.max()) + 1
        table = self.random_choice(own, _of_queries(count, q), blocks)  # (B, Q, r)
        seen = (own[:, :, None] - other[:, None, :]).abs() < self.near
        for chosen in table.unbind(dim=2):
            seen = seen | (chosen[:, :, None] == other[:, None, :])
        far = self.is_global(k.pos, length)
        seen = seen | far[:, None, :] | _of_queries(far, q)[:, :, None]
        return seen & (q.pos[:, :, None] >= k.pos[:, None, :]) if self.causal else seen

    def key_blocks(self, index: Int[Tensor, "#B N"], count: Int[Tensor, "#B N"]) -> Int[Tensor, "#B N V"]:
        window = self.window_blocks(index, self.near - 1, 0 if self.causal else self.near - 1)
        if not self.random_blocks:
            return window
        return torch.cat([window, self.random_choice(index, count, index.shape[1])], dim=2)

    def random_choice(
        self, index: Int[Tensor, "#B N"], count: Int[Tensor, "#B N"], blocks: int
    ) -> Int[Tensor, "#B N r"]:
        """Return the random blocks of each block of queries; -1 for those there are too few blocks for.

        Args:
            index: number of the block of queries in its text.
            count: number of blocks of the text.
            blocks: largest number of blocks of a text.
        """
        if not self.random_blocks:
            return index.new_zeros(*index.shape, 0)
        other = torch.arange(blocks, device=index.device)
        back = index[:, :, None] - other
        free = (back.abs() >= self.near) & (other >= self.global_blocks)
        free = free & (back > 0 if self.causal else other < count[:, :, None] - self.global_blocks)
        order = _hash(index[:, :, None], other, self.seed) * 2**31 + other  # no two are equal
        order = order.masked_fill(~free, LAST)
        value, chosen = order.topk(min(self.random_blocks, blocks), dim=2, largest=False)
        return chosen.masked_fill(value == LAST, -1)

    def global_positions(self, length: Int[Tensor, "#B 1"], slots: int) -> Int[Tensor, "#B M"] | None:
        if not self.has_globals:
            return None
        size = self.global_blocks * self.block
        first = torch.arange(size, device=length.device)[None]
        if self.causal:
            return first
        begin = (-(-length // self.block) - self.global_blocks) * self.block  # of the last ones
        last = begin + first
        return torch.cat([first.expand_as(last), last.masked_fill(last < size, -1)], dim=1)

    def is_global(self, pos: Int[Tensor, "#B S"], length: Int[Tensor, "#B S"]) -> Bool[Tensor, "#B S"]:
        block = pos // self.block
        chosen = (pos >= 0) & (block < self.global_blocks)
        if self.causal:
            return chosen
        return chosen | ((pos >= 0) & (block >= -(-length // self.block) - self.global_blocks))


def _of_queries(of_keys: Tensor, q: Positions) -> Tensor:
    """Return what is known of the keys for the queries, which are the last of them."""
    return of_keys[:, of_keys.shape[1] - q.pos.shape[1] :]


def _text_lengths(k: Positions) -> Int[Tensor, "#B K"]:
    """Return for each key the number of tokens of its text, as far as they are there."""
    if k.segment is None:
        return (k.pos.amax(dim=1, keepdim=True) + 1).expand_as(k.pos)
    pos = k.pos if k.keep is None else k.pos.masked_fill(~k.keep, -1)
    same = k.segment[:, :, None] == k.segment[:, None, :]
    return torch.where(same, pos[:, None, :], -1).amax(dim=2) + 1


def _hash(a: Int[Tensor, "..."], b: Int[Tensor, "..."], seed: int) -> Int[Tensor, "..."]:
    """Return well-mixed numbers of 31 bits of pairs; equal on every machine."""
    mask = 2**31 - 1
    mixed = (a * 0x9E3779B1 + b * 0x85EBCA77 + (seed % mask) * 0xC2B2AE3D) & mask
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & mask
        mixed = ((mixed ^ (mixed >> 12)) * 0x297A2D39) & mask
    return mixed ^ (mixed >> 15)


@config
class BigBird(SparseAttentionConfig):
    """Window, global and random blocks (BigBird, arXiv:2007.14062)."""

    block: PositiveInt = 64
    """Number of tokens in a block."""
    window: PositiveInt = 128
    """Number of tokens of the window on one side, the own block included: whole blocks. The published three blocks
    together are two of these."""
    global_blocks: NonNegativeInt = 1
    """Number of first blocks that are global; with ``causal: false`` as many last ones, too."""
    random_blocks: NonNegativeInt = 3
    """Number of blocks that each block sees at random."""
    seed: NonNegativeInt = 0
    """Seed of the random blocks."""

    @property
    def visibility(self) -> BigBirdPattern:  # pyright: ignore[reportIncompatibleVariableOverride]
        return BigBirdPattern(
            block=self.block,
            near=self.window // self.block,
            global_blocks=self.global_blocks,
            random_blocks=self.random_blocks,
            seed=self.seed,
            causal=self.causal,
        )

    def build(self, dim: int) -> SparseAttention:
        if self.window % self.block:
            below = self.window // self.block * self.block
            choices = f"{below} or {below + self.block}" if below else f"{self.block}"
            raise ConfigError(
                f"window: {self.window} tokens are no whole number of blocks of {self.block}: choose {choices}, or "
                "another block"
            )
        return SparseAttention(self, dim)
