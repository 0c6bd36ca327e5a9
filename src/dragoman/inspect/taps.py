"""Taps: ways to see, and to replace, one tensor inside a forward pass, without the model knowing.

A tap is attached with a ``visit`` function, which receives the tensor and returns it, or another one in its place. Most
taps are forward hooks on modules that exist anyway; each converts what the module passes on to the documented shape
and back. While nothing is attached, a forward is what it always was.

B batch, T tokens, H heads, C channels of one head, W width of all heads, N sentences, Q queries, S source tokens.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dragoman.model.attention import softmax
from dragoman.model.caches.summary import Summary, SummaryState
from dragoman.model.moe import MixtureLayer
from dragoman.model.recurrent.source_attention import SourceAttention

Visit = Callable[[Tensor], Tensor]
"""Function that receives the tensor at a place and returns it, or what is to stand there."""


class Handle(Protocol):
    """Attachment of a tap, which can be removed."""

    def remove(self) -> None: ...


class Tap(ABC):
    """One place in a forward pass."""

    stepwise: bool = False
    """True where the tensor comes in parts, one for each token, which together are the documented shape."""
    aside: bool = False
    """True where a kernel steps aside while the tap is attached, so that the answer may change by rounding."""
    call: int | None = None
    """0 or 1 for the first or second of the two calls of its module in one forward; None where there is one."""

    @abstractmethod
    def attach(self, visit: Visit) -> Handle:
        """Call ``visit`` in every forward, until the handle is removed."""

    def counted(self, visit: Visit) -> Visit:
        """Return ``visit`` restricted to the call that counts."""
        if self.call is None:
            return visit
        calls = itertools.count()
        return lambda x: visit(x) if next(calls) % 2 == self.call else x


# ---- shapes -----------------------------------------------------------------------------------------


class Shape:
    """Conversion between what a module passes on and the documented shape: none, here."""

    def shown(self, raw: Tensor) -> Tensor:
        return raw

    def restored(self, value: Tensor, raw: Tensor) -> Tensor:
        return value


@dataclass(frozen=True)
class SplitHeads(Shape):
    """(B, T, W) as (B, H, T, C)."""

    channels: int

    def shown(self, raw: Tensor) -> Tensor:
        return raw.unflatten(-1, (-1, self.channels)).transpose(1, 2)

    def restored(self, value: Tensor, raw: Tensor) -> Tensor:
        return value.transpose(1, 2).flatten(-2)


class OneStep(Shape):
    """(B, C) of one step as (B, 1, C); what has a time dimension stays as it is."""

    def shown(self, raw: Tensor) -> Tensor:
        return raw[:, None] if raw.dim() == 2 else raw

    def restored(self, value: Tensor, raw: Tensor) -> Tensor:
        return value[:, 0] if raw.dim() == 2 else value


AS_IT_IS = Shape()

# ---- hooks on modules ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class InputTap(Tap):
    """The first argument of a module."""

    module: nn.Module
    shape: Shape = AS_IT_IS
    stepwise: bool = False
    call: int | None = None

    def attach(self, visit: Visit) -> Handle:
        seen = self.counted(visit)

        def hook(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
            shown = self.shape.shown(given[0])
            new = seen(shown)
            return None if new is shown else (self.shape.restored(new, given[0]), *given[1:])

        return self.module.register_forward_pre_hook(hook)


@dataclass(frozen=True)
class OutputTap(Tap):
    """Output of a module, or the first of several."""

    module: nn.Module
    shape: Shape = AS_IT_IS
    aside: bool = False
    stepwise: bool = False
    call: int | None = None

    def attach(self, visit: Visit) -> Handle:
        seen = self.counted(visit)

        def hook(_: nn.Module, __: tuple[Any, ...], out: Any) -> Any:
            raw = out[0] if isinstance(out, tuple) else out
            shown = self.shape.shown(raw)
            new = seen(shown)
            if new is shown:
                return None
            restored = self.shape.restored(new, raw)
            return (restored, *out[1:]) if isinstance(out, tuple) else restored

        return self.module.register_forward_hook(hook)


@dataclass(frozen=True)
class PositionTap(Tap):
    """Vectors that a module for absolute positions adds to the embeddings."""

    module: nn.Module
    call: int | None = None

    def attach(self, visit: Visit) -> Handle:
        seen = self.counted(visit)

        def hook(module: Any, given: tuple[Any, ...], _: Tensor) -> Tensor | None:
            x, positions = given
            added = module.forward(torch.zeros_like(x), positions)
            new = seen(added)
            return None if new is added else x + new

        return self.module.register_forward_hook(hook)


@dataclass(frozen=True)
class RoutingTap(Tap):
    """Logits of a mixture's router, as (B, T, E); padding, which is routed nowhere, has zeros."""

    mixture: MixtureLayer
    call: int | None = None

    def attach(self, visit: Visit) -> Handle:
        before: list[tuple[Any, ...]] = []
        seen = self.counted(visit)

        def remember(_: nn.Module, given: tuple[Any, ...]) -> None:
            before[:] = [given]

        def hook(_: nn.Module, __: tuple[Any, ...], logits: Tensor) -> Tensor | None:
            x: Tensor = before[0][0]
            real: Tensor | None = (*before[0], None)[1]
            shape = (*x.shape[:-1], logits.shape[-1])
            if real is None:
                shown = logits.view(shape)
            else:
                real = real.expand(x.shape[:-1])
                shown = logits.new_zeros(shape).masked_scatter(real[..., None], logits)
            new = seen(shown)
            if new is shown:
                return None
            return new.reshape(logits.shape) if real is None else new[real]

        return _BothHandles(
            self.mixture.register_forward_pre_hook(remember), self.mixture.router.register_forward_hook(hook)
        )


@dataclass(frozen=True)
class _BothHandles:
    first: Handle
    second: Handle

    def remove(self) -> None:
        self.first.remove()
        self.second.remove()


# ---- attention of recurrent decoders ------------------------------------------------------------------


@dataclass(frozen=True)
class SourceAttentionTap(Tap):
    """Scores (before the mask) or weights of a recurrent decoder's attention, (B, 1, Q, S), step by step."""

    attention: SourceAttention
    of_scores: bool
    stepwise: bool

    def attach(self, visit: Visit) -> Handle:
        def hook(attention: Any, given: tuple[Any, ...], out: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
            query, source, mask = given
            context, weights = out
            k, v = source.k.squeeze(1), source.v.squeeze(1)
            shown = weights[:, None]
            if self.of_scores:
                shown = attention.scores(query.reshape(len(k), weights.shape[1], -1), k)[:, None]
            new = visit(shown)
            if new is shown:
                return None
            new = new[:, 0]
            if self.of_scores:
                new = softmax(new if mask is None else new + mask)
            return torch.bmm(new.to(v.dtype), v).view_as(context), new

        return self.attention.register_forward_hook(hook)


# ---- states -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StateTap(Tap):
    """State of a state-space, linear-attention or other recurrent mixer after each token, (B, T, ...).

    The mixer's scan computes all tokens at once and never stores these. So the same scan is run beside it, token by
    token; what comes out of that counts only where a state was replaced.
    """

    mixer: nn.Module
    stepwise: bool = True
    call: int | None = None

    def attach(self, visit: Visit) -> Handle:
        calls = itertools.count()

        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            if self.call not in (None, next(calls) % 2):
                return
            state = summary_of(given[2])
            plain = state.read  # of this forward's state, which is thrown away after it

            def read(scan: Any, *inputs: Tensor | None, empty: Summary | None = None) -> Tensor:
                value = empty if state.value is None else state.value
                outputs, after = plain(scan, *inputs, empty=empty), []
                stepped, replaced = [], False
                for t in range(max(x.shape[1] for x in inputs if x is not None)):
                    out, value = scan(value, *(None if x is None else x[:, t : t + 1] for x in inputs))
                    shown = value[0][:, None]
                    new = visit(shown)
                    if new is not shown and not torch.equal(new, shown):
                        value, replaced = (new[:, 0], *value[1:]), True
                    stepped.append(out)
                    after.append(value)
                if not replaced:
                    return outputs
                if state.remembers:
                    state.value = after[-1]
                return torch.cat(stepped, dim=1)

            state.read = read  # pyright: ignore[reportAttributeAccessIssue]

        return self.mixer.register_forward_pre_hook(hook)


def summary_of(state: Any) -> SummaryState:
    """Return the summary in a mixer's state."""
    if isinstance(state, SummaryState):
        return state
    return next(part for part in state.parts if isinstance(part, SummaryState))
