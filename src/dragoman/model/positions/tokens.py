"""Token ids with their masks, and positions of tokens, from which masks and caches are computed.

B batch, T length, C channels, K cached tokens, R rows, N sentences. A first dimension of 1 applies to every row of the
batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

PAD = 0
"""Id of padding in every vocabulary."""


class Tokens(NamedTuple):
    """Token ids with their masks. Where ids come alone, padding is recognized by its id."""

    ids: Int[Tensor, "B T"]
    keep: Bool[Tensor, "B T"] | None = None
    """False on padding; None when nothing is padded."""
    segment: Int[Tensor, "B T"] | None = None
    """Index of the text where several are packed into a row; positions restart in each. None for one per row."""
    field: Int[Tensor, "B T"] | None = None
    """Part of a structured input: see visibility.Structural, visibility.Prefix, and types in inputs.TokenInput."""


class Frames(NamedTuple):
    """Float vectors instead of ids, such as the spectra of sounds."""

    values: Float[Tensor, "B T C"]
    keep: Bool[Tensor, "B T"] | None = None
    """False on padding; None when nothing is padded."""


class Positions(NamedTuple):
    """Positions of tokens."""

    pos: Int[Tensor, "B T"]
    """Position in the text, counted from 0. Padding has that of the token it follows, and -1 in front of a text."""
    keep: Bool[Tensor, "B T"] | None = None
    segment: Int[Tensor, "B T"] | None = None
    field: Int[Tensor, "B T"] | None = None
    row: Int[Tensor, "B T"] | None = None
    """Row of a patch in its image; None in texts."""
    column: Int[Tensor, "B T"] | None = None

    def followed_by(self, new: "Positions") -> "Positions":
        """Return these positions followed by ``new``. Where only one has a mask, the other defaults to kept, the
        neighbouring segment, and field 1."""
        if not self.pos.shape[1]:
            return new
        joined = []
        for name, a, b in zip(self._fields, self, new, strict=True):
            given = a if b is None else b
            if given is None:
                joined.append(None)
                continue
            neighbour = given[:, -1:] if b is None else given[:, :1]
            default = neighbour if name == "segment" else torch.ones_like(neighbour)
            a = default.expand(-1, self.pos.shape[1]) if a is None else a
            b = default.expand(-1, new.pos.shape[1]) if b is None else b
            rows = max(len(a), len(b))
            joined.append(torch.cat([a.expand(rows, -1), b.expand(rows, -1)], dim=1))
        return Positions(*joined)

    def select_columns(self, chosen: slice | Int[Tensor, " K"]) -> "Positions":
        return self.each(lambda t: t[:, chosen])

    def select_rows(self, chosen: Int[Tensor, " R"]) -> "Positions":
        return self.each(lambda t: t if len(t) == 1 else t.index_select(0, chosen))

    def rearranged(self, order: Int[Tensor, "R K"]) -> "Positions":
        """Return the columns ``order`` of each row."""
        return self.each(lambda t: t.expand(len(order), -1).gather(1, order))

    def merge_beams(self, sentences: int, beams: int) -> "Positions":
        """Join the ``beams`` rows of each sentence into one: (N beams, T) -> (N, beams T)."""
        return self.each(lambda t: t.repeat(1, beams) if len(t) == 1 else t.reshape(sentences, -1))

    def pad(self, front: int = 0, behind: int = 0) -> "Positions":
        """Add columns of padding, ``front`` before and ``behind`` after."""
        if not (front or behind):
            return self
        wide = self.each(lambda t: torch.cat([t[:, :1].expand(-1, front), t, t[:, -1:].expand(-1, behind)], dim=1))
        wide.pos[:, :front] = -1
        keep = torch.ones_like(self.pos, dtype=torch.bool) if self.keep is None else self.keep
        return wide._replace(keep=F.pad(keep, (front, behind)))

    def stack_rows(self, below: "Positions", rows: int, rows_below: int) -> "Positions":
        """Return the rows of both, these first; ``rows`` and ``rows_below`` count them, and columns must be equal."""
        joined = []
        for name, a, b in zip(self._fields, self, below, strict=True):
            if a is None and b is None:
                joined.append(None)
                continue
            assert name == "keep" or (a is not None and b is not None), (
                f"{name}: given for one batch and not for the other"
            )
            a, b = (torch.ones_like(self.pos[:1], dtype=torch.bool) if t is None else t for t in (a, b))
            shared = len(a) == len(b) == 1 and torch.equal(a, b)
            joined.append(a if shared else torch.cat([a.expand(rows, -1), b.expand(rows_below, -1)]))
        return Positions(*joined)

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self if t is not None)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Positions":
        """Return the positions with each of their tensors changed."""
        return Positions(change(self.pos), *(None if t is None else change(t) for t in self[1:]))


def as_tokens(given: Int[Tensor, "B T"] | Tokens, pad: int | None = PAD, *, wait: bool = False) -> Tokens:
    """Attach a padding mask to ids that come alone: they are padded on the right with ``pad``; None: not at all.

    With ``wait``, synchronize with the device to leave out the mask where nothing is padded. CPUs always do; compiled
    programs, which serve all batches, never.
    """
    if isinstance(given, Tokens):
        return given
    if pad is None:
        return Tokens(given)
    keep = given != pad
    if torch.compiler.is_compiling():
        return Tokens(given, keep)
    if (wait or keep.device.type == "cpu") and bool(keep.all()):
        return Tokens(given)
    return Tokens(given, keep)


def positions_of(tokens: Tokens, last: Positions | None = None) -> Positions:
    """Return the positions of ``tokens``, which follow the token at ``last``; None where they begin a text."""
    ids, keep, segment, field = tokens
    T = ids.shape[1]
    start = 0 if last is None else last.pos + 1
    real = 1 if keep is None else keep.long()
    count = torch.arange(1, T + 1, device=ids.device)[None] if keep is None else keep.cumsum(dim=1)
    pos = start + count - 1
    before = None if last is None else last.segment
    if segment is not None:
        first = segment[:, :1] if before is None else before.expand(len(segment), 1)
        fresh = segment != torch.cat([first, segment[:, :-1]], dim=1)
        pos = pos - torch.where(fresh, start + count - real, 0).cummax(dim=1).values  # all that came before this text
    elif before is not None:
        segment = before.expand(-1, T)
    return Positions(pos, keep, segment, field)
