"""Texts as rows that begin at column 0, the longest first: how fused kernels read padded and packed batches exactly.

A kernel reads rows of equal length from their beginning. So each text becomes a row of its own, wherever its tokens
stand in the batch: after padding, before padding, or packed with other texts into one row. Rows that have ended are
dropped while the others are read on, as ``torch.nn.utils.rnn.PackedSequence`` drops them, but in few steps, because
oneDNN's kernel, the fastest on CPUs, takes no packed sequences.

B rows of the batch, T length, N texts, L length of the longest text, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.model.caches.summary import Summary
from dragoman.model.positions.tokens import Tokens, positions_of
from dragoman.model.recurrent.cells import RecurrentLayer


@dataclass(frozen=True)
class TextRows:
    """Where the tokens of each text of a batch stand."""

    to_texts: Int[Tensor, "N L"]
    """Index among the B T tokens of the batch of each token of each text; 0 after its end."""
    to_batch: Int[Tensor, "B T"]
    """Index among the N L tokens of the texts of each token of the batch; 0 for padding."""
    real: Bool[Tensor, "B T"]
    """False on padding of the batch."""
    inside: Bool[Tensor, "N L"]
    """False after the end of a text."""
    lengths: list[int]
    """Tokens of each text, in falling order."""
    row: Int[Tensor, " N"]
    """Row of the batch in which each text stands."""
    aligned: bool
    """True where the batch already has one text in each row, from column 0 on."""
    reverse: Int[Tensor, "N L"]
    """Same as ``to_texts``, each text from its last token to its first."""
    reversed_to_batch: Int[Tensor, "B T"]
    """Same as ``to_batch``, for reversed texts."""

    @classmethod
    def of(cls, ids: Int[Tensor, "B T"], keep: Tensor | None, segment: Tensor | None) -> "TextRows | None":
        """Return where the texts of a batch stand; None where each row is one text without padding."""
        if ids.is_meta or (keep is None and segment is None):  # shapes alone tell no lengths: every token counts
            return None
        B, T = ids.shape
        real = torch.ones_like(ids, dtype=torch.bool) if keep is None else keep.expand(B, T)
        rank = positions_of(Tokens(ids, real, segment)).pos.expand(B, T)
        first = real & (rank == 0)
        text = (first.flatten().cumsum(0) - 1).view(B, T)
        length = torch.bincount(text[real])
        order = torch.argsort(length, descending=True, stable=True)
        lengths = length[order].tolist()
        if len(lengths) == B and min(lengths) == T:
            return None
        L = max(lengths, default=0)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=ids.device))
        if not lengths:
            text, place, length = text.clamp(min=0), text.new_zeros(1), text.new_zeros(1)
        base, behind = place[text] * L + rank, place[text] * L + length[text] - 1 - rank
        tokens, size = torch.arange(B * T, device=ids.device).view(B, T), (len(lengths), L)
        to_texts, reverse = tokens.new_zeros(len(lengths) * L), tokens.new_zeros(len(lengths) * L)
        to_texts[base[real]], reverse[behind[real]] = tokens[real], tokens[real]
        column = torch.arange(T, device=ids.device)
        aligned = len(lengths) == B and bool(((rank == column) | ~real).all())
        return cls(
            to_texts.view(size),
            base.masked_fill(~real, 0),
            real,
            torch.arange(L, device=ids.device) < length[order][:, None],
            lengths,
            first.nonzero()[:, 0][order],
            aligned,
            reverse.view(size),
            behind.masked_fill(~real, 0),
        )

    def take(self, x: Float[Tensor, "B T C"], *, reverse: bool = False) -> Float[Tensor, "N L C"]:
        """Return the texts, each from its first token on, or from its last; any finite values after their ends."""
        there, back = (self.reverse, self.reversed_to_batch) if reverse else (self.to_texts, self.to_batch)
        return _Rearranged.apply(x, there, back, self.real)

    def put_back(self, y: Float[Tensor, "N L C"], *, reverse: bool = False) -> Float[Tensor, "B T C"]:
        """Undo ``take``; padding becomes any finite values."""
        there, back = (self.reverse, self.reversed_to_batch) if reverse else (self.to_texts, self.to_batch)
        return _Rearranged.apply(y, back, there, self.inside)

    def states_of(self, state: Summary) -> Summary:
        """Return the state of each text's row of the batch."""
        return tuple(part.index_select(0, self.row) for part in state)

    def put_states(self, after: Summary, before: Summary) -> Summary:
        """Return the state of each row of the batch: ``after`` its text, or as ``before`` where it has no token."""
        return tuple(old.index_copy(0, self.row, new) for new, old in zip(after, before, strict=True))


class _Rearranged(torch.autograd.Function):
    """Select tokens by ``there``; the gradient comes back by ``back``, and is 0 for tokens that are not ``real``.

    PyTorch would add the gradients of selected tokens one by one, because it does not know that each is selected once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(back, real)
        return x.flatten(0, 1).index_select(0, there.flatten()).view(*there.shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        back, real = ctx.saved_tensors
        found = upstream.flatten(0, 1).index_select(0, back.flatten()).view(*back.shape, -1)
        return found.masked_fill_(~real[..., None], 0), None, None, None


def scan_rows(
    layer: RecurrentLayer, x: Float[Tensor, "N L C"], lengths: Sequence[int], state: Summary, *, exact: bool
) -> tuple[Float[Tensor, "N L H"], Summary]:
    """Read texts of falling ``lengths`` after ``state``; return the outputs and, if ``exact``, the state after each
    text. Outputs after the end of a text are any finite values."""
    outputs, after, begin = [], [], 0
    for end in boundaries(lengths, exact=exact):
        rows = sum(length > begin for length in lengths)
        y, state = layer.scan(x[:rows, begin:end], tuple(part[:rows] for part in state), x.shape[1])
        outputs.append(y if rows == len(x) else F.pad(y, (0, 0, 0, 0, 0, len(x) - rows)))
        going = sum(length > end for length in lengths)
        after.append(tuple(part[going:] for part in state))
        begin = end
    ended = tuple(torch.cat(parts[::-1]) for parts in zip(*after, strict=True))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), ended


ENDED = 0.25
"""Fraction of the rows that must have ended before the others are read on without them: each stop costs a call."""


def boundaries(lengths: Sequence[int], *, exact: bool) -> list[int]:
    """Return the columns up to which rows of falling ``lengths`` are read together: each length if ``exact``, else few,
    so that little is read in vain."""
    distinct = sorted(set(lengths))
    if exact:
        return distinct
    chosen, running = [], len(lengths)
    for length in distinct[:-1]:
        left = sum(other > length for other in lengths)
        if left <= (1 - ENDED) * running:
            chosen.append(length)
            running = left
    return [*chosen, distinct[-1]]
