"""Places of tokens in blocks, for block-sparse attention: padding last, and each text from a new block if asked.

B batch, T tokens of a row, S slots in N blocks of b, H heads, C channels of one head. A first dimension of 1 applies to
every row of the batch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dragoman.model.positions.tokens import Positions


class TokenBlocks(NamedTuple):
    """Places of the tokens of each row in N blocks of b slots. Padding comes last."""

    block: int
    """Slots of a block b."""
    positions: Positions
    """Positions of the slots (#B, S); ``keep`` is False on empty ones."""
    length: Int[Tensor, "#B S"]
    """Length in tokens of the text that each slot is of."""
    first: Int[Tensor, "#B N"]
    """For each block the first block of its text, if these are aligned; else 0."""
    text_blocks: Int[Tensor, "#B N"]
    """Number of blocks of that text, if aligned; else of the row."""
    column: Int[Tensor, "B S"] | None = None
    """Column of the token in each slot; None where slots are the columns, with empty ones behind."""
    slot: Int[Tensor, "B T"] | None = None
    """Slot of each column."""

    @classmethod
    def of(cls, positions: Positions, block: int, *, aligned: bool) -> "TokenBlocks":
        """Lay out rows of tokens; texts that are packed into a row begin with a block of their own if ``aligned``."""
        if positions.segment is not None:
            return _packed(positions, block, aligned=aligned)
        if positions.keep is None:
            return _plain(positions, block)
        real = positions.keep
        column = torch.argsort(~real, dim=1, stable=True)
        slot = torch.argsort(column, dim=1)
        return _with_columns(positions, block, column, slot, real.sum(dim=1, keepdim=True).expand_as(real))

    @property
    def number(self) -> Int[Tensor, "#B N"]:
        """Number of each block in its text, if these are aligned; else in its row."""
        return torch.arange(self.first.shape[1], device=self.first.device) - self.first

    def split(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B N b H C"]:
        """Put the tokens into their slots."""
        x, S = x.transpose(1, 2), self.positions.pos.shape[1]
        if self.column is not None:
            x = take_rows(x, self.column)
        elif x.shape[1] != S or torch.compiler.is_compiling():
            x = F.pad(x, (0, 0, 0, 0, 0, S - x.shape[1]))
        return x.unflatten(1, (-1, self.block))

    def merge(self, x: Float[Tensor, "B S H C"], tokens: int) -> Float[Tensor, "B T H C"]:
        """Return the tokens from their slots; zeros for padding."""
        if self.slot is None or self.positions.keep is None:
            return x[:, :tokens]
        x = x.masked_fill(~self.positions.keep[:, :, None, None], 0)
        return take_rows(x, self.slot)


def take_rows(x: Shaped[Tensor, "B S *E"], index: Int[Tensor, "#B M"]) -> Shaped[Tensor, "B M *E"]:
    """Return for each text the vectors at these places. (``take_along_dim`` makes an index of every number.)"""
    B, S = x.shape[:2]
    flat = (index + torch.arange(B, device=x.device)[:, None] * S).flatten()
    return x.flatten(0, 1).index_select(0, flat).unflatten(0, (B, index.shape[1]))


def _plain(positions: Positions, block: int) -> TokenBlocks:
    """Lay out rows of one text each, without padding."""
    T = positions.pos.shape[1]
    extra = -T % block
    kept = positions._replace(keep=None)
    if extra or torch.compiler.is_compiling():
        kept = kept.pad(behind=extra)
    return _one_text(kept, block, torch.full_like(kept.pos, T))


def _one_text(positions: Positions, block: int, length: Tensor, *columns: Tensor) -> TokenBlocks:
    blocks = length[:, ::block]
    return TokenBlocks(block, positions, length, torch.zeros_like(blocks), (blocks + block - 1) // block, *columns)


def _with_columns(positions: Positions, block: int, column: Tensor, slot: Tensor, length: Tensor) -> TokenBlocks:
    """Lay out tokens in the order of ``column``, with empty slots behind up to a whole block."""
    extra = -column.shape[1] % block
    column, length = (F.pad(t, (0, extra)) for t in (column, length))
    positions, real = _gathered(positions, column)
    if extra:
        real = real & (torch.arange(column.shape[1], device=column.device) < column.shape[1] - extra)
    return _one_text(positions._replace(keep=real), block, length[:, :1].expand_as(column), column, slot)


def _gathered(positions: Positions, column: Int[Tensor, "B S"]) -> tuple[Positions, Bool[Tensor, "B S"]]:
    """Return the positions in these columns, and which of them are real."""
    found = positions.each(lambda t: t.expand(len(column), -1).gather(1, column))
    real = torch.ones_like(column, dtype=torch.bool) if found.keep is None else found.keep
    return found, real


def _packed(positions: Positions, block: int, *, aligned: bool) -> TokenBlocks:
    """Lay out rows of several texts, one after the other."""
    assert positions.segment is not None
    T, device = positions.pos.shape[1], positions.pos.device
    real = torch.ones_like(positions.segment, dtype=torch.bool) if positions.keep is None else positions.keep
    real, pos, _ = torch.broadcast_tensors(real, positions.pos, positions.segment)
    text = ((pos == 0) & real).cumsum(dim=1).masked_fill(~real, 0)  # texts of a row from 1; 0 for padding
    lengths = torch.zeros(len(text), T + 1, dtype=torch.long, device=device).scatter_add_(1, text, real.long())
    lengths[:, 0] = 0
    room = -(-lengths // block) * block if aligned else lengths
    begin = room.cumsum(dim=1) - room
    slots = int(room.sum(dim=1).max()) if aligned and device.type != "meta" else T
    slots = max(-(-slots // block), 1) * block
    slot = (begin.gather(1, text) + pos).masked_fill(~real, slots)
    column = torch.zeros(len(text), slots + 1, dtype=torch.long, device=device)
    column.scatter_(1, slot, torch.arange(T, device=device).expand(len(text), -1))
    filled = torch.zeros_like(column, dtype=torch.bool).scatter_(1, slot, True)[:, :slots]
    column, slot = column[:, :slots], slot.clamp(max=slots - 1)
    found, _ = _gathered(positions._replace(keep=None), column)
    text = text.gather(1, column)
    length = lengths.gather(1, text)
    first = begin.gather(1, text)[:, ::block] // block if aligned else torch.zeros_like(text[:, ::block])
    count = -(-length[:, ::block] // block) if aligned else torch.full_like(first, slots // block)
    found = found._replace(keep=filled)
    return TokenBlocks(block, found, length, first, count, column, slot)
