"""Who may see whom: predicates on where tokens stand, turned once per forward into the cheapest form a kernel takes.

B batch, T length, Q/K query and key lengths. A first dimension of 1 speaks for every row of the batch.
"""

from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.positions.places import Places

# ---- the choices ----------------------------------------------------------------------------------


@config
class Full:
    """Everyone sees everyone."""

    window = None

    def allows(self, q: Places, k: Places) -> Bool[Tensor, "B Q K"]:
        return torch.ones(1, q.pos.shape[1], k.pos.shape[1], dtype=torch.bool, device=q.pos.device)


@config
class Causal:
    """A token sees itself and the past."""

    window: PositiveInt | None = None
    """Tokens visible, the current one included; None for all."""
    sinks: NonNegativeInt = 0
    """First tokens of the text that stay visible beyond the window (StreamingLLM, arXiv:2309.17453)."""

    def allows(self, q: Places, k: Places) -> Bool[Tensor, "B Q K"]:
        back = q.pos[:, :, None] - k.pos[:, None, :]
        if self.window is None:
            return back >= 0
        return (back >= 0) & ((back < self.window) | (k.pos < self.sinks)[:, None, :])


@config
class Prefix:
    """Causal, but tokens of field 0 are seen by all: a prompt read in both directions (T5's prefix LM).

    While decoding, a prompt has to come in one piece: what came before its second half cannot see that any more.
    """

    window = None

    def allows(self, q: Places, k: Places) -> Bool[Tensor, "B Q K"]:
        past = q.pos[:, :, None] >= k.pos[:, None, :]
        return past if k.field is None else past | (k.field == 0)[:, None, :]


@config
class Structural:
    """The user says which fields see which: ``sees[f]`` lists the fields that a token of field f may see."""

    sees: tuple[tuple[NonNegativeInt, ...], ...]
    causal: bool = False
    """Whether the past limits it further."""

    window = None

    def allows(self, q: Places, k: Places) -> Bool[Tensor, "B Q K"]:
        if q.field is None or k.field is None:
            raise ConfigError(
                "model: visibility: structural needs the field of each token, and nothing here tells it: pass Tokens "
                "with field=..., or use another visibility"
            )
        known = max([len(self.sees), *(f + 1 for row in self.sees for f in row)])
        if not torch.compiler.is_compiling() and (largest := int(k.field.max())) >= known:
            raise ConfigError(
                f"model: visibility: field {largest} of a token is not in 'sees', which knows fields 0 to {known - 1}"
            )
        table = torch.zeros(known, known, dtype=torch.bool, device=q.pos.device)
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
    if k.segment is None and k.keep is None:
        to_the_start = isinstance(visibility, Causal) and _reaches(visibility.window, K)
        if isinstance(visibility, Full) or (to_the_start and Q == 1):
            return Sight()
        if to_the_start and Q == K:
            return Sight(causal=True)
    return _masked(visibility, q, k)


def _reaches(window: int | None, K: int) -> bool:
    """Whether a window shows all of K tokens; not, where one program is compiled for every K."""
    return window is None or (window >= K and not torch.compiler.is_compiling())


def look_across(visibility: Visibility, q: Places, k: Places) -> Sight:
    """Cross-attention from ``q`` to an encoded source ``k``. Where both are packed, equal segments belong together."""
    if isinstance(visibility, Full) and (q.segment is None or k.segment is None):
        return Sight(None if k.keep is None else k.keep[:, None, None, :])
    return _masked(visibility, q, k)


def still_visible(visibility: Visibility, seen: Places, spare: int = 0) -> Int[Tensor, " K"] | None:
    """Which of the columns ``seen`` tokens to come may see, in any row; None for all. A cache may forget the others.

    ``spare``: even if so many of the newest are taken back.
    """
    if not isinstance(visibility, Causal) or visibility.window is None:
        return None
    device, K, back, sinks = seen.pos.device, seen.pos.shape[1], visibility.window - 1 + spare, visibility.sinks
    if seen.keep is None and seen.segment is None:  # columns stand in the order of positions: no need to look
        if sinks + back >= K:
            return None
        return torch.cat([torch.arange(sinks, device=device), torch.arange(K - back, K, device=device)])
    visible = (seen.pos >= seen.pos[:, -1:] + 1 - back) | (seen.pos < sinks)
    if seen.keep is not None:
        visible = visible & seen.keep
    if seen.segment is not None:
        visible = visible & (seen.segment == seen.segment[:, -1:])
    return visible.any(dim=0).nonzero().squeeze(1)


def _masked(visibility: Visibility, q: Places, k: Places) -> Sight:
    mask = visibility.allows(q, k)
    if q.segment is not None and k.segment is not None:
        mask = mask & (q.segment[:, :, None] == k.segment[:, None, :])
    if k.keep is not None:
        mask = mask & k.keep[:, None, :]
    return Sight(mask[:, None])
