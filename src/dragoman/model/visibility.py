"""Who may see whom: predicates on where tokens stand, turned once per forward into the cheapest form a kernel takes.

B batch, T length, Q/K query and key lengths. A first dimension of 1 speaks for every row of the batch.
"""

from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dragoman.config import OneOf, config


class Places(NamedTuple):
    """Where tokens stand."""

    pos: Int[Tensor, "B T"]
    """Position in the text, counted from 0."""
    keep: Bool[Tensor, "B T"] | None = None
    """False on padding; None when nothing is padded."""
    segment: Int[Tensor, "B T"] | None = None
    """Which of the documents packed into a row; None when each row holds one. Segments do not see each other."""
    field: Int[Tensor, "B T"] | None = None
    """Which part of a structured input (a prefix, a column of a table); see Prefix and Structural."""

    def followed_by(self, new: "Places") -> "Places":
        """These and then ``new``. What only one of the two knows: all kept, or the last segment and field go on."""
        B = max(len(t) for t in (*self, *new) if t is not None)
        joined = []
        for name, a, b in zip(self._fields, self, new, strict=True):
            if a is None and b is None:
                joined.append(None)
                continue
            if a is None:
                a = torch.ones_like(self.pos, dtype=b.dtype) if name == "keep" else b[:, :1].expand_as(self.pos)
            if b is None:
                b = torch.ones_like(new.pos, dtype=a.dtype) if name == "keep" else a[:, -1:].expand(-1, new.pos.shape[1])
            rows = 1 if name == "pos" and len(a) == len(b) == 1 else B
            joined.append(torch.cat([a.expand(rows, -1), b.expand(rows, -1)], dim=1))
        return Places(*joined)

    def rows(self, rows: Int[Tensor, " R"]) -> "Places":
        return Places(*(t if t is None or len(t) == 1 else t.index_select(0, rows) for t in self))

    def columns(self, chosen: slice | Tensor) -> "Places":
        return Places(*(None if t is None else t[:, chosen] for t in self))


# ---- the choices ----------------------------------------------------------------------------------


@config
class Full:
    """Everyone sees everyone."""

    @property
    def window(self) -> None:
        return None

    def allows(self, q: Places, k: Places) -> Bool[Tensor, "B Q K"]:
        return torch.ones(1, q.pos.shape[1], k.pos.shape[1], dtype=torch.bool, device=q.pos.device)


@config
class Causal:
    """A token sees itself and the past."""

    window: int | None = None
    """Tokens visible, the current one included; None for all."""
    sinks: int = 0
    """First tokens of the text that stay visible beyond the window (StreamingLLM, arXiv:2309.17453)."""

    def allows(self, q: Places, k: Places) -> Bool[Tensor, "B Q K"]:
        back = q.pos[:, :, None] - k.pos[:, None, :]
        if self.window is None:
            return back >= 0
        return (back >= 0) & ((back < self.window) | (k.pos < self.sinks)[:, None, :])


@config
class Prefix:
    """Causal, but tokens of field 0 are seen by all: a prompt read in both directions (T5's prefix LM)."""

    @property
    def window(self) -> None:
        return None

    def allows(self, q: Places, k: Places) -> Bool[Tensor, "B Q K"]:
        past = q.pos[:, :, None] >= k.pos[:, None, :]
        return past if k.field is None else past | (k.field == 0)[:, None, :]


@config
class Structural:
    """The user says which fields see which: ``sees[f]`` lists the fields that a token of field f may see."""

    sees: tuple[tuple[int, ...], ...]
    causal: bool = False
    """Whether the past limits it further."""

    @property
    def window(self) -> None:
        return None

    def allows(self, q: Places, k: Places) -> Bool[Tensor, "B Q K"]:
        if q.field is None or k.field is None:
            raise ValueError("structural visibility needs the field of each token: pass Tokens with field=...")
        size = 1 + max(len(self.sees) - 1, *(f for row in self.sees for f in row))
        table = torch.zeros(size, size, dtype=torch.bool, device=q.pos.device)
        for i, row in enumerate(self.sees):
            table[i, list(row)] = True
        seen = table[q.field[:, :, None], k.field[:, None, :]]
        return seen & (q.pos[:, :, None] >= k.pos[:, None, :]) if self.causal else seen


Visibility = Annotated[Full | Causal | Prefix | Structural, OneOf()]

# ---- the cheapest form ----------------------------------------------------------------------------


class Sight(NamedTuple):
    """Who sees whom in one forward. Neither field set: everyone sees everyone."""

    mask: Bool[Tensor, "B 1 Q K"] | None = None
    causal: bool = False
    """Query i sees keys 0..i, as kernels know it: no mask is stored."""

    def dense(self, Q: int, K: int, device: torch.device) -> Bool[Tensor, "B 1 Q K"] | None:
        """The mask itself, for kernels that know no ``causal``; None when everyone sees everyone."""
        return torch.ones(Q, K, dtype=torch.bool, device=device).tril()[None, None] if self.causal else self.mask


def look(visibility: Visibility, q: Places, k: Places) -> Sight:
    """Self-attention from the newest tokens ``q`` to ``k``, which ends with them."""
    Q, K = q.pos.shape[1], k.pos.shape[1]
    plain = k.segment is None and k.keep is None
    if plain and (isinstance(visibility, Full) or (visibility == Causal() and Q == 1)):
        return Sight()
    if plain and visibility == Causal() and Q == K:
        return Sight(causal=True)
    return _masked(visibility, q, k)


def look_across(visibility: Visibility, q: Places, k: Places) -> Sight:
    """Cross-attention from ``q`` to an encoded source ``k``; what is full needs no more than the source's padding."""
    if isinstance(visibility, Full):
        return Sight(None if k.keep is None else k.keep[:, None, None, :])
    return _masked(visibility, q, k._replace(segment=None))


def _masked(visibility: Visibility, q: Places, k: Places) -> Sight:
    mask = visibility.allows(q, k)
    if q.segment is not None and k.segment is not None:
        mask = mask & (q.segment[:, :, None] == k.segment[:, None, :])
    if k.keep is not None:
        mask = mask & k.keep[:, None, :]
    return Sight(mask[:, None])
