"""Convolution over the tokens of a text, and its state while decoding: the newest inputs of each row.

A convolution is one product: the vectors of a token and of its neighbours, beside one another, times a matrix. So it
runs in whichever library multiplies fastest, and can be packed for decoding as any linear layer is.

Texts never mix, neither across padding nor where several are packed into a row. Real tokens are moved to the front of
their rows, in text order, before a stack of convolutions runs: padding is then behind every text, where no causal
convolution sees it and where others read zeros.

B batch, T newest tokens, K recent inputs, D inputs, N outputs, k kernel, R rows.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dragoman.model.caches.state import LayerState
from dragoman.model.convolution.weights import Weights, fill
from dragoman.model.positions.tokens import Positions


class AlignedRows(NamedTuple):
    """Rows whose real tokens are in front: how they were moved there, and which neighbours are of the same text."""

    positions: Positions
    """Positions of the tokens, moved."""
    order: Int[Tensor, "B T"] | None = None
    """Column that each token was moved from; None where all are in their place."""
    rank: Int[Tensor, "B T"] | None = None
    """Column that each token was moved to."""
    real: Float[Tensor, "B T 1"] | None = None
    """0 on padding, 1 on tokens; None where nothing is padded."""
    lengths: Int[Tensor, " B"] | None = None
    """Number of real tokens of each row; None for all."""
    given: Bool[Tensor, "B T"] | None = None
    """False on padding, before tokens were moved; None where nothing is padded."""
    same_text: dict[int, Float[Tensor, "B T 1"]] | None = None
    """For each distance back, negative for ahead, 1 where both tokens are of one text; None for one text in a row."""

    @classmethod
    def of(cls, positions: Positions, distances: Iterable[int], dtype: torch.dtype) -> "AlignedRows":
        """Return the layout of tokens at ``positions``, for convolutions that read tokens at these ``distances``."""
        if (keep := positions.keep) is None:
            return cls(positions, same_text=_same_text(positions.segment, distances, dtype))
        order = rank = None
        if not _are_in_front(keep):
            order, rank = torch.argsort(~keep, dim=1, stable=True), (keep.cumsum(dim=1) - 1).clamp(min=0)
            positions = positions.rearranged(order)
        lengths, same = keep.sum(dim=1), _same_text(positions.segment, distances, dtype)
        real = torch.arange(keep.shape[1], device=keep.device)[None, :, None] < lengths[:, None, None]
        return cls(positions, order, rank, real.to(dtype), lengths, keep, same)

    def moved(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return ``x`` with real tokens in front."""
        return x if self.order is None else torch.take_along_dim(x, self.order[..., None], dim=1)

    def restored(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return ``x`` in the order before ``moved``. Padding may hold any finite value."""
        return x if self.rank is None else torch.take_along_dim(x, self.rank[..., None], dim=1)


def _are_in_front(keep: Bool[Tensor, "B T"]) -> bool:
    """Return whether all padding is known to be behind the texts. Only CPUs look: others would have to wait."""
    if torch.compiler.is_compiling() or keep.device.type != "cpu":
        return False
    return bool((keep[:, 1:] <= keep[:, :-1]).all())


def _same_text(
    segment: Int[Tensor, "B T"] | None, distances: Iterable[int], dtype: torch.dtype
) -> dict[int, Tensor] | None:
    if segment is None:
        return None
    T, found = segment.shape[1], {}
    for by in distances:
        other = F.pad(segment, (max(by, 0), max(-by, 0)), value=-1)[:, max(-by, 0) :][:, :T]
        found[by] = (segment == other)[..., None].to(dtype)
    return found


class Convolution(nn.Module):
    """Linear layer over a token and its neighbours, ``dilation`` tokens apart."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        weights: Weights,
        *,
        kernel: int,
        dilation: int = 1,
        causal: bool,
        gain: float,
        retained: float = 1.0,
    ):
        """
        Args:
            inputs: width D of the vectors read.
            outputs: width N of the vectors returned.
            weights: how the weights are parametrized.
            kernel: number of tokens k that each output is computed from.
            dilation: distance between two of them.
            causal: read a token and those before it; else as many on either side.
            gain: see ``weights.fill``.
            retained: see ``weights.fill``.
        """
        super().__init__()
        self.kernel, self.dilation, self.causal = kernel, dilation, causal
        self.linear = weights.build(kernel * inputs, outputs)
        fill(self.linear, gain, retained)

    @property
    def reach(self) -> int:
        """Number of tokens between the first one read and the last one."""
        return (self.kernel - 1) * self.dilation

    @property
    def distances(self) -> list[int]:
        """Distance back to each token read, the first one first; negative for later tokens."""
        behind = self.reach if self.causal else self.reach // 2
        return [behind - i * self.dilation for i in range(self.kernel)]

    def forward(self, x: Float[Tensor, "B T D"], layout: AlignedRows, state: "RecentInputs") -> Float[Tensor, "B T N"]:
        return self.linear(x if self.kernel == 1 else self.windows(x, layout, state))

    def windows(self, x: Float[Tensor, "B T D"], layout: AlignedRows, state: "RecentInputs") -> Float[Tensor, "B T kD"]:
        """Return the vectors that each token's output is computed from, the earliest first; zeros outside its text."""
        T, step = x.shape[1], self.dilation
        if self.causal:
            seen = state.extend(x, layout)
        else:
            inside = x if layout.real is None else x * layout.real
            seen = F.pad(inside, (0, 0, self.reach // 2, self.reach // 2))
        if T == 1:
            return (seen if step == 1 else seen[:, ::step]).flatten(1)[:, None]
        columns = [seen[:, i * step : i * step + T] for i in range(self.kernel)]
        if layout.same_text is not None:
            same = layout.same_text
            columns = [x * same[by] if by else x for x, by in zip(columns, self.distances, strict=True)]
        return torch.cat(columns, dim=-1)


class RecentInputs(LayerState):
    """The newest inputs of a causal convolution in each row: as many as a later token may still read.

    Its size does not depend on the length of the text. Rows are kept apart from one another's padding: each holds its
    own newest tokens, and zeros from before its text.
    """

    def __init__(self, reach: int, *, remembers: bool):
        """
        Args:
            reach: number of tokens before the newest that an output is computed from.
            remembers: False where tokens of one forward are not visible in the next.
        """
        self.reach, self.remembers = reach, remembers
        self.past: Float[Tensor, "R K D"] | None = None
        self.rewindable = 0
        self.real: Bool[Tensor, "R T"] | None = None
        """False where one of the newest ``rewindable`` columns was padding; None where none was."""

    def extend(self, new: Float[Tensor, "R T D"], layout: AlignedRows) -> Float[Tensor, "R K D"]:
        """Append ``new``; return it behind the ``reach`` inputs before it."""
        if not self.remembers:
            return F.pad(new, (0, 0, self.reach, 0))
        (R, T, D), kept = new.shape, self.reach + self.rewindable
        past = new.new_zeros(R, kept, D) if self.past is None else _front_padded(self.past, kept)
        seen = torch.cat([past, new], dim=1)
        self._remember_padding(R, T, layout)
        if layout.lengths is None:
            newest = seen[:, T:]
            self.past = newest if T == 1 else newest.clone()  # a view would hold all of a long prompt
        else:
            columns = layout.lengths.expand(R)[:, None] + torch.arange(kept, device=new.device)
            self.past = torch.take_along_dim(seen, columns[..., None], dim=1)
        return seen[:, self.rewindable :] if self.rewindable else seen

    def _remember_padding(self, rows: int, newest: int, layout: AlignedRows) -> None:
        if not self.rewindable or (layout.given is None and self.real is None):
            return
        device = layout.positions.pos.device
        new = torch.ones(rows, newest, dtype=torch.bool, device=device) if layout.given is None else layout.given
        before = new.new_ones(rows, self.rewindable) if self.real is None else self.real
        self.real = torch.cat([before, new.expand(rows, -1)], dim=1)[:, -self.rewindable :]

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        if self.past is not None:
            self.past = self.past.index_select(0, rows)
        if self.real is not None:
            self.real = self.real.index_select(0, rows)

    def join(self, other: LayerState) -> None:
        assert isinstance(other, RecentInputs)
        if self.past is None or other.past is None:
            return
        kept = max(self.past.shape[1], other.past.shape[1])
        self.past = torch.cat([_front_padded(past, kept) for past in (self.past, other.past)])
        self.real = None  # the rows differ in age: only tokens read together can be taken back

    def allow_rewind(self, tokens: int) -> None:
        self.rewindable = tokens

    def rewind(self, tokens: int) -> None:
        if self.past is None or not tokens:
            return
        kept = self.past.shape[1]
        if self.real is None:
            self.past = _front_padded(self.past[:, : kept - tokens], kept)
            return
        taken = self.real[:, -tokens:].sum(dim=1)
        columns = torch.arange(kept, device=taken.device) - taken[:, None]
        found = torch.take_along_dim(self.past, columns.clamp(min=0)[..., None], dim=1)
        self.past = found.masked_fill((columns < 0)[..., None], 0)
        self.real = _front_padded(self.real[:, :-tokens, None], self.real.shape[1])[..., 0]

    @property
    def nbytes(self) -> int:
        return 0 if self.past is None else self.past.nbytes


def _front_padded(x: Tensor, length: int) -> Tensor:
    """Return ``x`` (R, K, D) with zeros in front, to ``length`` columns."""
    return x if x.shape[1] == length else F.pad(x, (0, 0, length - x.shape[1], 0))
