"""Who may see whom: predicates on where tokens stand, turned once per forward into the cheapest form a kernel takes.

Each choice is a predicate, ``allows``. The other methods are what is cheaper than asking it of every pair of tokens.
Shortcuts that hold for one predicate only ask whether it is in force, so that a subclass may override ``allows`` alone.

B batch, T length, Q/K query and key lengths. A first dimension of 1 speaks for every row of the batch.
"""

from abc import ABC, abstractmethod
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.exact import overrides
from dragoman.model.positions.tokens import Positions

# ---- the cheapest form ----------------------------------------------------------------------------


class AttentionMask(NamedTuple):
    """Who sees whom in one forward. Neither field set: everyone sees everyone."""

    allowed: Bool[Tensor, "B 1 Q K"] | None = None
    causal: bool = False
    """Query i sees keys 0..i, as kernels know it: no mask is stored."""

    def dense(self, Q: int, K: int, device: torch.device) -> Bool[Tensor, "B 1 Q K"] | None:
        """The mask itself, for kernels that know no ``causal``; None when everyone sees everyone."""
        return torch.ones(Q, K, dtype=torch.bool, device=device).tril()[None, None] if self.causal else self.allowed


# ---- the choices ----------------------------------------------------------------------------------


class VisibilityRule(ABC):
    """Base of the choices: what follows from ``allows`` alone."""

    window: int | None = None
    """Tokens visible, the current one included; None for no such limit."""

    @property
    def sees_only_past(self) -> bool:
        """Whether no token ever sees one behind it."""
        return False

    @abstractmethod
    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        """Tell which keys each query sees, texts and padding apart."""

    def within_text(self, q: Positions, k: Positions) -> AttentionMask:
        """See from the newest tokens ``q`` to ``k``, which ends with them."""
        return _masked(self, q, k)

    def across(self, q: Positions, k: Positions) -> AttentionMask:
        """See from ``q`` to an encoded source ``k``."""
        return _masked(self, q, k)

    def retained(self, seen: Positions, rewindable: int) -> Int[Tensor, " K"] | None:
        """Choose the columns of ``seen`` that tokens to come may see; None for all. See ``retained_columns``."""
        return None

    def in_window(self, tokens: int, sinks: int) -> "Causal | None":
        """Limit it to the last ``tokens`` and the first ``sinks`` of a text; None where it sees more than the past."""
        return None


@config
class Full(VisibilityRule):
    """Everyone sees everyone."""

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        return torch.ones(1, q.pos.shape[1], k.pos.shape[1], dtype=torch.bool, device=q.pos.device)

    def within_text(self, q: Positions, k: Positions) -> AttentionMask:
        if k.segment is None and k.keep is None and not overrides(self, Full, "allows"):
            return AttentionMask()
        return super().within_text(q, k)

    def across(self, q: Positions, k: Positions) -> AttentionMask:
        if (q.segment is None or k.segment is None) and not overrides(self, Full, "allows"):
            return AttentionMask(None if k.keep is None else k.keep[:, None, None, :])
        return super().across(q, k)


@config
class Causal(VisibilityRule):
    """A token sees itself and the past."""

    window: PositiveInt | None = None
    """Tokens visible, the current one included; None for all."""
    sinks: NonNegativeInt = 0
    """First tokens of the text that stay visible beyond the window (StreamingLLM, arXiv:2309.17453)."""

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        back = q.pos[:, :, None] - k.pos[:, None, :]
        if self.window is None:
            return back >= 0
        return (back >= 0) & ((back < self.window) | (k.pos < self.sinks)[:, None, :])

    @property
    def sees_only_past(self) -> bool:
        return not overrides(self, Causal, "allows")

    def within_text(self, q: Positions, k: Positions) -> AttentionMask:
        Q, K = q.pos.shape[1], k.pos.shape[1]
        if k.segment is None and k.keep is None and self.sees_only_past and _reaches(self.window, K):
            if Q == 1:
                return AttentionMask()
            if Q == K:
                return AttentionMask(causal=True)
        return super().within_text(q, k)

    def in_window(self, tokens: int, sinks: int) -> "Causal | None":
        if not self.sees_only_past:
            return None
        if self.window is not None and self.window <= tokens:
            return self
        return Causal(window=tokens, sinks=max(sinks, self.sinks))

    def retained(self, seen: Positions, rewindable: int) -> Int[Tensor, " K"] | None:
        if self.window is None or not self.sees_only_past:
            return None
        device, K, back, sinks = seen.pos.device, seen.pos.shape[1], self.window - 1 + rewindable, self.sinks
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


@config
class Prefix(VisibilityRule):
    """Causal, but tokens of field 0 are seen by all: a prompt read in both directions (T5's prefix LM).

    While decoding, a prompt has to come in one piece: what came before its second half cannot see that any more.
    """

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        past = q.pos[:, :, None] >= k.pos[:, None, :]
        return past if k.field is None else past | (k.field == 0)[:, None, :]


@config
class Structural(VisibilityRule):
    """The user says which fields see which: ``sees[f]`` lists the fields that a token of field f may see."""

    sees: tuple[tuple[NonNegativeInt, ...], ...]
    causal: bool = False
    """Whether the past limits it further."""

    @property
    def sees_only_past(self) -> bool:
        return self.causal and not overrides(self, Structural, "allows")

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
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

# ---- asked by towers -------------------------------------------------------------------------------


def build_self_mask(visibility: Visibility, q: Positions, k: Positions) -> AttentionMask:
    """Self-attention from the newest tokens ``q`` to ``k``, which ends with them."""
    return visibility.within_text(q, k)


def build_cross_mask(visibility: Visibility, q: Positions, k: Positions) -> AttentionMask:
    """Cross-attention from ``q`` to an encoded source ``k``. Where both are packed, equal segments belong together."""
    return visibility.across(q, k)


def retained_columns(visibility: Visibility, seen: Positions, rewindable: int = 0) -> Int[Tensor, " K"] | None:
    """Which of the columns ``seen`` tokens to come may see, in any row; None for all. A cache may forget the others.

    ``rewindable``: even if so many of the newest are taken back.
    """
    return visibility.retained(seen, rewindable)


def _reaches(window: int | None, K: int) -> bool:
    """Whether a window shows all of K tokens; not, where one program is compiled for every K."""
    return window is None or (window >= K and not torch.compiler.is_compiling())


def _masked(visibility: VisibilityRule, q: Positions, k: Positions) -> AttentionMask:
    mask = visibility.allows(q, k)
    if q.segment is not None and k.segment is not None:
        mask = mask & (q.segment[:, :, None] == k.segment[:, None, :])
    if k.keep is not None:
        mask = mask & k.keep[:, None, :]
    return AttentionMask(mask[:, None])
