"""Depthwise convolution over successive tokens of one text: part of several mixers, with its cache.

Each channel is a weighted sum over ``kernel`` successive tokens. Texts never mix: not across padding, and not where
several are packed into one row.

B batch, T newest tokens, K cached and newest tokens, D channels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from dragoman.model.caches.state import LayerState, VisibleKeys
from dragoman.model.positions.tokens import Positions


class DepthwiseConvolution(nn.Conv1d):
    """Weighted sums over a token and its neighbours, channel by channel."""

    def __init__(self, channels: int, kernel: int, *, bias: bool, causal: bool = True):
        """
        Args:
            channels: number of channels D.
            kernel: number of tokens in each sum.
            bias: add a learned constant to each channel.
            causal: sum over a token and those before it; else over as many on either side.
        """
        super().__init__(channels, channels, kernel, groups=channels, bias=bias)
        behind = 0 if causal else kernel // 2
        self.shifts = range(kernel - 1 - behind, -1 - behind, -1)
        """For each weight of the kernel the distance back to its token; negative for later tokens."""

    def forward(self, x: Float[Tensor, "B K D"], neighbours: "Neighbours") -> Float[Tensor, "B T D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight = self.weight[:, 0].to(x.dtype)  # (D, kernel)
        if neighbours.newest == 1 and neighbours.column is None and self.shifts[-1] == 0:  # a step of decoding
            seen = x[:, -len(self.shifts) :]
            total = (seen * weight.T[-seen.shape[1] :]).sum(dim=1, keepdim=True)
            return total if self.bias is None else total + self.bias.to(x.dtype)
        terms = (neighbours.shifted(x, shift) * weight[:, i] for i, shift in enumerate(self.shifts))
        total = sum(terms, start=x.new_zeros(()))
        return total if self.bias is None else total + self.bias.to(x.dtype)


class Neighbours(NamedTuple):
    """Neighbours of the newest tokens within their own text."""

    newest: int
    """Number of newest tokens T."""
    retained: Int[Tensor, " L"] | None
    """Columns that later tokens may need; None for all."""
    positions: Positions
    """Positions of all K columns, the newest last."""
    column: Int[Tensor, "B K"] | None = None
    """Columns of the real tokens of each row, in text order; None where nothing is padded and columns are in order."""
    rank: Int[Tensor, "B T"] | None = None
    """Index of each of the newest tokens in ``column``."""

    @classmethod
    def of(cls, new: Positions, seen: VisibleKeys) -> "Neighbours":
        newest, positions = new.pos.shape[1], seen.positions
        if positions.keep is None and positions.segment is None:
            return cls(newest, seen.retained, positions)
        rows = max(len(t) for t in positions[:3] if t is not None)
        shape = (rows, positions.pos.shape[1])
        real = (
            positions.pos.new_ones(shape, dtype=torch.bool) if positions.keep is None else positions.keep.expand(shape)
        )
        column = torch.argsort(~real, dim=1, stable=True)
        return cls(newest, seen.retained, positions, column, (real.cumsum(dim=1) - 1)[:, -newest:])

    def shifted(self, x: Float[Tensor, "B K D"], by: int) -> Float[Tensor, "B T D"]:
        """Return, for each of the newest tokens, the vector ``by`` tokens before it; zeros outside its text."""
        if self.column is None or self.rank is None:
            first = x.shape[1] - self.newest - by
            ahead = max(0, first + self.newest - x.shape[1])
            return F.pad(x[:, max(0, first) : x.shape[1] - max(0, by)], (0, 0, max(0, -first), ahead))[:, : self.newest]
        column = self.column.gather(1, (self.rank - by).clamp(0, x.shape[1] - 1))
        found = x.gather(1, column[..., None].expand(len(x), -1, x.shape[2]))
        return found.masked_fill(~self.is_neighbour(column, by)[..., None], 0)

    def is_neighbour(self, column: Int[Tensor, "B T"], by: int) -> Bool[Tensor, "B T"]:
        """Return whether ``column`` holds real tokens of the same text, ``by`` positions before each newest token."""
        pos, keep, segment = self.positions[:3]
        fits = pos.expand(len(column), -1).gather(1, column) == pos[:, -self.newest :] - by
        if keep is not None:
            keep = keep.expand(len(column), -1)
            fits = fits & keep[:, -self.newest :] & keep.gather(1, column)
        if segment is not None:
            segment = segment.expand(len(column), -1)
            fits = fits & (segment[:, -self.newest :] == segment.gather(1, column))
        return fits


class ConvolutionState(LayerState):
    """Cache of a convolution's inputs, or of other vectors, of the tokens that later ones may need; columns match
    their positions."""

    def __init__(self, *, remembers: bool):
        self.remembers = remembers
        self.past: Shaped[Tensor, "B K D"] | None = None

    def extend(self, new: Shaped[Tensor, "B T D"], retained: Int[Tensor, " L"] | None) -> Shaped[Tensor, "B K D"]:
        """Append ``new`` and return all inputs, ``new`` last; keep only the columns ``retained`` (None for all)."""
        if not self.remembers:
            return new
        seen = new if self.past is None else torch.cat([self.past, new], dim=1)
        self.replace(seen, retained)
        return seen

    def replace(self, seen: Shaped[Tensor, "B K D"], retained: Int[Tensor, " L"] | None) -> None:
        """Keep the columns ``retained`` (None for all) of all inputs so far, in place of those kept before."""
        self.past = seen if retained is None else seen.index_select(1, retained)

    def forget(self, retained: Int[Tensor, " L"]) -> None:
        if self.past is not None:
            self.past = self.past.index_select(1, retained)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        if self.past is not None:
            self.past = self.past.index_select(0, rows)

    def join(self, other: LayerState) -> None:
        assert isinstance(other, ConvolutionState)
        if self.past is None or other.past is None:
            return
        longest = max(self.past.shape[1], other.past.shape[1])
        both = (F.pad(past, (0, 0, longest - past.shape[1], 0)) for past in (self.past, other.past))
        self.past = torch.cat([*both])

    def rewind(self, tokens: int) -> None:
        if self.past is not None:
            self.past = self.past[:, : self.past.shape[1] - tokens]

    @property
    def nbytes(self) -> int:
        return 0 if self.past is None else self.past.nbytes
