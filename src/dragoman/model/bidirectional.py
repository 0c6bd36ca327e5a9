"""A causal mixer in both directions, for encoders: the sum of a layer that reads forwards and one that reads backwards.

The second layer reads each text in reverse order: the tokens of a text exchange their columns, the last with the first
and so on, while padding and other texts packed into the same row keep theirs. So both layers share one context, and
each sees complete texts from their beginning.

B batch, T length, D width.
"""

from collections.abc import Hashable
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.config import OneOf, at, config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy, VisibleKeys
from dragoman.model.caches.summary import JoinedState
from dragoman.model.gated_delta_net import GatedDeltaNet
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.masks.visibility import Full, Visibility
from dragoman.model.min_gru import MinGru
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.mlstm import Mlstm
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions

Recurrent = Mamba | Mamba2 | GatedDeltaNet | Mlstm | MinGru
"""Causal mixers that sum up the past in a state. This is their only list: ``Mixer`` of ``tower.py`` contains it."""
RecurrentMixer = Annotated[Recurrent, OneOf()]


@config
class Bidirectional(MixerConfig):
    """Two layers of a causal mixer whose outputs are summed; the second reads each text in reverse (encoders only)."""

    mixer: RecurrentMixer

    @property
    def visibility(self) -> Visibility:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Full()

    def build(self, dim: int) -> "BidirectionalLayer":
        with at("mixer"):
            return BidirectionalLayer(self.mixer.build(dim), self.mixer.build(dim))

    def build_position(self, dim: int) -> RelativeScheme:
        return self.mixer.build_position(dim)

    def position_key(self, dim: int) -> Hashable:
        return self.mixer.position_key(dim)

    def check_decoder(self) -> None:
        inner = kind_of(type(self.mixer))
        raise ConfigError(
            f"kind: bidirectional reads later tokens too, and a decoder must not see what it is to predict: use {inner}"
        )


class BidirectionalLayer(MixerLayer):
    """A layer for each direction."""

    visibility = Full()

    def __init__(self, forwards: MixerLayer, backwards: MixerLayer):
        super().__init__()
        self.forwards, self.backwards = forwards, backwards

    @property
    def context_key(self) -> Hashable:
        return type(self), self.forwards.context_key, self.forwards.visibility

    def context(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        new: Positions,
        seen: VisibleKeys,
        scheme: RelativeScheme,
        real: Bool[Tensor, "B T"] | None,
        dtype: torch.dtype,
    ) -> "BothDirections":
        visible = seen._replace(visibility=self.forwards.visibility)
        return BothDirections(self.forwards.context(new, visible, scheme, real, dtype), reversed_columns(new))

    def forward(
        self, x: Float[Tensor, "B T D"], context: "BothDirections", state: JoinedState
    ) -> Float[Tensor, "B T D"]:
        forwards, backwards = state.parts
        y = self.forwards(x, context.inner, forwards)
        return y + context.reverse(self.backwards(context.reverse(x), context.inner, backwards))

    def new_state(self, policy: KVPolicy) -> JoinedState:
        return JoinedState(self.forwards.new_state(policy), self.backwards.new_state(policy))


class BothDirections(NamedTuple):
    """Context of both layers, and the columns in which the second reads."""

    inner: Any
    columns: Int[Tensor, "B T"] | None
    """For each column the one with which it is exchanged; None: all, the first with the last."""

    def reverse(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return ``x`` with the tokens of each text in reverse order."""
        if self.columns is None:
            return x.flip(1)
        return x.gather(1, self.columns[..., None].expand(len(x), -1, x.shape[2]))


def reversed_columns(new: Positions) -> Int[Tensor, "B T"] | None:
    """Return for each column the one whose token takes its place in the reversed text; padding keeps its own.

    None where no row holds padding or several texts.
    """
    if new.keep is None and new.segment is None:
        return None
    rows = max(len(t) for t in new[:3] if t is not None)
    pos = new.pos.expand(rows, -1)
    real = torch.ones_like(pos, dtype=torch.bool) if new.keep is None else new.keep.expand(rows, -1)
    column = torch.argsort(~real, dim=1, stable=True)  # of the real tokens, in order, and then of the padding
    rank = real.cumsum(dim=1) - 1
    text = (real & (pos == 0)).cumsum(dim=1)  # number of the text in its row
    last = torch.zeros_like(rank).scatter_reduce(1, text.clamp(max=rank.shape[1] - 1), rank, "amax")
    last = last.gather(1, text.clamp(max=rank.shape[1] - 1))
    mirrored = column.gather(1, (last - pos).clamp(min=0, max=rank.shape[1] - 1))
    return torch.where(real, mirrored, torch.arange(rank.shape[1], device=pos.device))
