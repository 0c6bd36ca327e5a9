"""Bridges: the decoder's first state, computed from the encoded source.

N sentences, S source length, E width of the encoded source, H channels of a decoder state.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.config import OneOf, config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.caches.summary import Summary
from dragoman.model.linear import Linear
from dragoman.model.positions.tokens import Positions
from dragoman.model.recurrent.stack import BidirectionalLayers, FirstBidirectional, RecurrentStack, RecurrentStackConfig


class BridgeLayer(nn.Module, ABC):
    """Bridge with its weights."""

    needs_states = False
    """True where the exact state after each source is needed, not only the outputs."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "N S E"], positions: Positions, states: Sequence[Summary], empty: Summary
    ) -> Summary:
        """Return the decoder's first state.

        Args:
            x: the encoder's outputs.
            positions: positions of the source.
            states: state of each encoder layer after the source; exact only if ``needs_states``.
            empty: a decoder state of zeros.
        """


# ---- configurations ---------------------------------------------------------------------------------


@config
class NoBridge:
    """Begin with zeros."""

    def build(self, encoder: RecurrentStack, decoder: RecurrentStackConfig, hidden: int) -> BridgeLayer:
        return EmptyBridge()


@config
class ProjectOutputs:
    """Project the encoder's last outputs of either direction: tanh(W x) for each layer's h, W x for an LSTM's c
    (Bahdanau et al., arXiv:1409.0473, appendix A.2.2)."""

    def build(self, encoder: RecurrentStack, decoder: RecurrentStackConfig, hidden: int) -> BridgeLayer:
        return ProjectingBridge(encoder, decoder, hidden)


@config
class CopyStates:
    """Copy the state of each encoder layer to the same layer of the decoder (Sutskever et al., arXiv:1409.3215)."""

    def build(self, encoder: RecurrentStack, decoder: RecurrentStackConfig, hidden: int) -> BridgeLayer:
        theirs = encoder.cfg
        if isinstance(theirs.direction, BidirectionalLayers | FirstBidirectional):
            raise ConfigError("kind: copy_states needs an encoder that reads one way: use project_outputs")
        encoders, decoders = _layers(theirs, encoder.outputs), _layers(decoder, hidden)
        if encoders != decoders:
            raise ConfigError(
                f"kind: copy_states needs layers that are alike, and the encoder has {encoders}, the decoder "
                f"{decoders}: use project_outputs"
            )
        return CopyingBridge()


def _layers(cfg: RecurrentStackConfig, width: int) -> str:
    return f"{cfg.depth} x {width} {kind_of(type(cfg.cell))}"


Bridge = Annotated[NoBridge | ProjectOutputs | CopyStates, OneOf()]

# ---- layers -----------------------------------------------------------------------------------------


class EmptyBridge(BridgeLayer):
    """Zeros."""

    def forward(self, x: Tensor, positions: Positions, states: Sequence[Summary], empty: Summary) -> Summary:
        return empty


class CopyingBridge(BridgeLayer):
    """The encoder's states; what a decoder has beyond them stays zero."""

    needs_states = True

    def forward(self, x: Tensor, positions: Positions, states: Sequence[Summary], empty: Summary) -> Summary:
        given = tuple(part for state in states for part in state)
        return (*given, *empty[len(given) :])


class ProjectingBridge(BridgeLayer):
    """One product for all layers; what a decoder has beyond their states stays zero."""

    def __init__(self, encoder: RecurrentStack, decoder: RecurrentStackConfig, hidden: int):
        super().__init__()
        self.parts, self.hidden = decoder.cell.parts, hidden
        self.sides = encoder.cfg.direction.sides(encoder.cfg.depth - 1)
        self.project = Linear(encoder.outputs, decoder.depth * self.parts * hidden)

    def forward(self, x: Tensor, positions: Positions, states: Sequence[Summary], empty: Summary) -> Summary:
        given = self.project(self.last_outputs(x, positions.keep)).to(empty[0].dtype).split(self.hidden, dim=1)
        made = tuple(part.tanh() if i % self.parts == 0 else part for i, part in enumerate(given))
        return (*made, *empty[len(made) :])

    def last_outputs(self, x: Float[Tensor, "N S E"], keep: Tensor | None) -> Float[Tensor, "N E"]:
        """Return the outputs after the whole text: at the last token forward, at the first backward."""
        row = torch.arange(len(x), device=x.device)
        first = torch.zeros_like(row) if keep is None else keep.int().argmax(dim=1)
        last = first + x.shape[1] - 1 if keep is None else x.shape[1] - 1 - keep.flip(1).int().argmax(dim=1)
        if self.sides.number == 2:
            ahead, behind = x.chunk(2, dim=-1)
            return torch.cat([ahead[row, last], behind[row, first]], dim=1)
        return x[row, last if self.sides.ahead else first]
