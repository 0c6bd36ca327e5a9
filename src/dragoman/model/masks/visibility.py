"""Visibility: rules for attention masks, converted once per forward into the cheapest form that a kernel takes.

Each rule is a predicate on positions, ``allows``. The other methods are shortcuts, cheaper than evaluating it for every
pair of tokens. A shortcut is used only while ``allows`` is not overridden, so that a subclass may override that alone.

B batch, T length, Q/K query and key lengths. A first dimension of 1 applies to every row of the batch.
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

# ---- masks ----------------------------------------------------------------------------------------


class AttentionMask(NamedTuple):
    """Attention mask of one forward. With neither field set, every query sees every key."""

    allowed: Bool[Tensor, "B 1 Q K"] | None = None
    causal: bool = False
    """Query i sees keys 0..i; kernels support this without a stored mask."""

    def dense(self, Q: int, K: int, device: torch.device) -> Bool[Tensor, "B 1 Q K"] | None:
        """Return the mask as a tensor, for kernels without ``causal``; None when every query sees every key."""
        return torch.ones(Q, K, dtype=torch.bool, device=device).tril()[None, None] if self.causal else self.allowed


# ---- configurations -------------------------------------------------------------------------------


class VisibilityRule(ABC):
    """Base of the rules: everything that follows from ``allows`` alone."""

    window: int | None = None
    """Number of visible tokens, including the current one; None for no limit."""

    @property
    def sees_only_past(self) -> bool:
        """True where no token ever sees a later one."""
        return False

    @property
    def sees_future(self) -> bool:
        """True where each token sees those behind it, for certain: a decoder would learn to copy what it is to predict.
        False also where that depends on the fields of tokens, or on a subclass."""
        return False

    @property
    def needs_fields(self) -> bool:
        """True where every token must have a field."""
        return False

    @abstractmethod
    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        """Return which keys each query sees, regardless of text boundaries and padding."""

    def within_text(self, q: Positions, k: Positions) -> AttentionMask:
        """Return the mask of self-attention from the newest tokens ``q`` to ``k``, which ends with them."""
        return _masked(self, q, k)

    def across(self, q: Positions, k: Positions) -> AttentionMask:
        """Return the mask of cross-attention from ``q`` to an encoded source ``k``."""
        return _masked(self, q, k)

    def retained(self, seen: Positions, rewindable: int) -> Int[Tensor, " K"] | None:
        """Return the columns of ``seen`` that later tokens may see; None for all. See ``retained_columns``."""
        return None

    def in_window(self, tokens: int, sinks: int) -> "VisibilityRule | None":
        """Return this rule limited to the last ``tokens`` and first ``sinks`` of a text, so that nothing is seen that
        the rule does not show; None for rules that see later tokens."""
        return None


@config
class Full(VisibilityRule):
    """Full visibility: every token sees every token."""

    @property
    def sees_future(self) -> bool:
        return not overrides(self, Full, "allows")

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
    """Causal visibility: a token sees itself and earlier ones."""

    window: PositiveInt | None = None
    """Number of visible tokens, including the current one; None for all."""
    sinks: NonNegativeInt = 0
    """Number of first tokens that stay visible beyond the window (StreamingLLM, arXiv:2309.17453)."""

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
        if self.window is None:
            return Causal(window=tokens, sinks=max(sinks, self.sinks))
        if self.window <= tokens:
            return self
        return Causal(window=tokens, sinks=self.sinks)  # beyond its own window a layer has never seen other tokens

    def retained(self, seen: Positions, rewindable: int) -> Int[Tensor, " K"] | None:
        if self.window is None or not self.sees_only_past:
            return None
        device, K, back, sinks = seen.pos.device, seen.pos.shape[1], self.window - 1 + rewindable, self.sinks
        if seen.keep is None and seen.segment is None:  # columns are in the order of positions
            if sinks + back >= K:
                return None
            return torch.cat([torch.arange(sinks, device=device), torch.arange(K - back, K, device=device)])
        visible = (seen.pos >= seen.pos[:, -1:] + 1 - back) | (seen.pos < sinks)
        return columns_still_visible(visible, seen, rewindable)


@config
class SlidingWindow(VisibilityRule):
    """Sliding window: a token sees those at most ``reach`` tokens away, in either direction (Longformer,
    arXiv:2004.05150, section 3.1, as ModernBERT uses it, arXiv:2412.13663)."""

    reach: PositiveInt
    """Largest distance at which a token is seen."""

    @property
    def sees_future(self) -> bool:
        return not overrides(self, SlidingWindow, "allows")

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        return (q.pos[:, :, None] - k.pos[:, None, :]).abs() <= self.reach


@config
class Prefix(VisibilityRule):
    """Prefix visibility: causal, but tokens of field 0 are visible to all: a prompt read in both directions (T5's
    prefix LM).

    While decoding, a prompt must come in one call: the tokens of an earlier call cannot see those of a later one.
    """

    def allows(self, q: Positions, k: Positions) -> Bool[Tensor, "B Q K"]:
        past = q.pos[:, :, None] >= k.pos[:, None, :]
        return past if k.field is None else past | (k.field == 0)[:, None, :]


@config
class Structural(VisibilityRule):
    """Visibility by the fields of tokens."""

    sees: tuple[tuple[NonNegativeInt, ...], ...]
    """For each field f, the fields that its tokens may see."""
    causal: bool = False
    """Hide later tokens as well."""

    @property
    def needs_fields(self) -> bool:
        return not overrides(self, Structural, "allows")

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


Visibility = Annotated[Full | Causal | SlidingWindow | Prefix | Structural, OneOf()]

# ---- functions for towers --------------------------------------------------------------------------


def build_self_mask(visibility: VisibilityRule, q: Positions, k: Positions) -> AttentionMask:
    """Build the mask of self-attention from the newest tokens ``q`` to ``k``, which ends with them."""
    return visibility.within_text(q, k)


def build_cross_mask(visibility: VisibilityRule, q: Positions, k: Positions) -> AttentionMask:
    """Build the mask of cross-attention from ``q`` to an encoded source ``k``; packed texts see their own segment."""
    return visibility.across(q, k)


def retained_columns(visibility: VisibilityRule, seen: Positions, rewindable: int = 0) -> Int[Tensor, " K"] | None:
    """Return the columns of ``seen`` that later tokens may see in any row; None for all. A cache may drop the others.

    They stay valid if up to ``rewindable`` of the newest tokens are removed.
    """
    return visibility.retained(seen, rewindable)


def columns_still_visible(visible: Bool[Tensor, "#B K"], seen: Positions, rewindable: int) -> Int[Tensor, " L"]:
    """Return the columns of ``seen`` that are ``visible`` to later tokens in any row, and the newest ``rewindable``,
    which are taken back by number."""
    if seen.keep is not None:
        visible = visible & seen.keep
    if seen.segment is not None:
        visible = visible & (seen.segment == seen.segment[:, -1:])
    newest = torch.arange(seen.pos.shape[1], device=seen.pos.device) >= seen.pos.shape[1] - rewindable
    return (visible.any(dim=0) | newest).nonzero().squeeze(1)


def _reaches(window: int | None, K: int) -> bool:
    """Return whether a window shows all K tokens; False while compiling, where one program serves every K."""
    return window is None or (window >= K and not torch.compiler.is_compiling())


def _masked(visibility: VisibilityRule, q: Positions, k: Positions) -> AttentionMask:
    mask = visibility.allows(q, k)
    if q.segment is not None and k.segment is not None:
        mask = mask & (q.segment[:, :, None] == k.segment[:, None, :])
    if k.keep is not None:
        mask = mask & k.keep[:, None, :]
    return AttentionMask(mask[:, None])
