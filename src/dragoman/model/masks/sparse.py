"""Sparse attention patterns: which keys each query sees, as a predicate on positions and as blocks of keys.

The predicate, ``allows``, defines a pattern; decoding and short texts use it as a mask. Over a long text attention goes
by blocks (``block_sparse.py``): each block of queries gathers the few blocks of keys named by ``key_blocks`` and the
keys of all global tokens. Together these hold every key that the predicate shows, and usually a few more, which it then
masks.

B batch, S slots: tokens of a row, padded to whole blocks; N blocks, b tokens of a block, V key blocks, M global tokens.
A first dimension of 1 applies to every row of the batch.
"""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dragoman.config import config
from dragoman.model.masks.visibility import Causal, Full, VisibilityRule
from dragoman.model.positions.tokens import Positions

SMALLEST_BLOCK = 16
"""Fewest tokens of a block whose size is free: smaller products are slow."""
LARGEST_BLOCK = 128
"""Most tokens of a block whose size is free: of a larger one a window masks too much."""


class SparsePattern(VisibilityRule):
    """Base of the patterns."""

    causal: bool
    """Hide later tokens."""
    aligned: bool = False
    """True where blocks are counted from the beginning of each text, also where several are packed into a row."""
    globals_attend: bool = False
    """True where global tokens see every token, causally where ``causal``."""

    @property
    def has_globals(self) -> bool:
        """True where there are global tokens."""
        return False

    @property
    def sees_only_past(self) -> bool:
        return self.causal

    @property
    def sees_future(self) -> bool:
        return not self.causal

    @property
    @abstractmethod
    def block_size(self) -> int:
        """Number of tokens b of a block."""

    @property
    def within_blocks(self) -> VisibilityRule:
        """Rule that masks the gathered keys: the pattern's own, unless ``key_blocks`` names exactly what it shows."""
        return self

    @property
    def order(self) -> VisibilityRule:
        """Rule of a token that sees everything: causal, or all."""
        return Causal() if self.causal else Full()

    @abstractmethod
    def key_blocks(self, index: Int[Tensor, "#B N"], count: Int[Tensor, "#B N"]) -> Int[Tensor, "#B N V"]:
        """Return the blocks of keys that each block of queries gathers, every one at most once.

        Args:
            index: number of the block of queries in its text, or in its row where not ``aligned``.
            count: number of blocks of that text or row; blocks below 0 or from here on do not exist.
        """

    def global_positions(self, length: Int[Tensor, "#B 1"], slots: int) -> Int[Tensor, "#B M"] | None:
        """Return the positions of the global tokens, which every token sees, of texts of ``length`` tokens, one a row;
        those outside do not exist. ``slots`` is the largest length. None: this pattern has none."""
        return None

    def is_global(self, pos: Int[Tensor, "#B S"], length: Int[Tensor, "#B S"]) -> Bool[Tensor, "#B S"]:
        """Return which tokens are global, by their positions in texts of ``length`` tokens."""
        return torch.zeros_like(pos, dtype=torch.bool)

    def in_window(self, tokens: int, sinks: int) -> "WindowedPattern | None":
        return WindowedPattern(pattern=self, window=Causal(window=tokens, sinks=sinks)) if self.causal else None

    def window_blocks(self, index: Int[Tensor, "#B N"], back: int, ahead: int = 0) -> Int[Tensor, "#B N V"]:
        """Return the blocks from ``back`` before to ``ahead`` after each."""
        return index[:, :, None] + torch.arange(-back, ahead + 1, device=index.device)


@config
class WindowedPattern(VisibilityRule):
    """A causal pattern whose cache keeps only a window: see ``caches.cache.Window``."""

    pattern: SparsePattern
    window: Causal  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def sees_only_past(self) -> bool:
        return True

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        return self.pattern.allows(q, k) & self.window.allows(q, k)

    def retained(self, seen: Positions, rewindable: int) -> Int[Tensor, " K"] | None:
        return self.window.retained(seen, rewindable)


def free_block_size(window: int) -> int:
    """Return the block size for a window of that many tokens: the power of two from it on, within bounds."""
    return min(max(1 << (window - 1).bit_length(), SMALLEST_BLOCK), LARGEST_BLOCK)
