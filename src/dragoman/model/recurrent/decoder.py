"""Recurrent decoders: a stack of layers, and where attention to the source meets it.

Three classes, by what a step needs of the step before it besides the state of its own layer:

- ``PlainDecoder``: nothing, so that each layer reads all steps in one fused call (no attention, Luong's without
  feeding);
- ``EarlyAttentionDecoder``: the lowest layer's state, so that the lowest layer runs in a loop over steps, and each
  layer above it in one call (Bahdanau, GNMT);
- ``FeedingDecoder``: the last output, so that all layers run in a loop (Luong's with input feeding).

B rows, T steps, D width of the model, H channels of a state, E width of the encoded source, N sentences, S its length.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.config import at
from dragoman.model.caches.storage import KV
from dragoman.model.caches.summary import Summary
from dragoman.model.layer_stack import LayerStack
from dragoman.model.linear import Linear
from dragoman.model.recurrent.cells import RecurrentLayer
from dragoman.model.recurrent.looped import in_loop, step_product
from dragoman.model.recurrent.rows import TextRows
from dragoman.model.recurrent.source_attention import (
    Bahdanau,
    DecoderAttention,
    GnmtAttention,
    Luong,
    NoSourceAttention,
    SourceAttention,
    build_attention,
)
from dragoman.model.recurrent.stack import LayerDropout, RecurrentStackConfig, check_decoder, read_texts


class Source(NamedTuple):
    """Encoded source as a step reads it."""

    kv: KV
    mask: Float[Tensor, "N 1 S"] | None
    """Added to the scores; None where nothing is padded."""


Reading = tuple[Float[Tensor, "B T D"], Summary]
"""Inputs of the output layer, and the state after them."""


class RecurrentDecoder(LayerStack, ABC):
    """Layers that read one way, with attention to a source where there is one."""

    cross: SourceAttention
    """Attention to the source; missing where there is none."""
    blocks: Sequence[RecurrentLayer]

    def __init__(self, cfg: RecurrentStackConfig, dim: int, inputs: Sequence[int]):
        """
        Args:
            cfg: the stack.
            dim: width D of tokens and outputs.
            inputs: width of each layer's input.
        """
        super().__init__()
        self.cfg, self.hidden = cfg, cfg.channels(dim)
        self.blocks = cast(
            Sequence[RecurrentLayer], nn.ModuleList(RecurrentLayer(cfg.cell, width, self.hidden) for width in inputs)
        )
        self.dropout = LayerDropout(cfg.dropout, cfg.dropout_mask)

    @abstractmethod
    def read(
        self,
        x: Float[Tensor, "B T D"],
        state: Summary,
        source: Source | None = None,
        rows: TextRows | None = None,
        *,
        exact: bool = True,
    ) -> Reading:
        """Read the next tokens after ``state``.

        Args:
            x: vectors of the tokens.
            state: that of all layers: see ``empty``.
            source: the encoded source, where there is attention.
            rows: where the texts stand; None where each row is one text without padding.
            exact: False where the state after the tokens is not needed, and may be anything.
        """

    def empty(self, rows: int) -> Summary:
        """Return the state before the first token, without a source: that of each layer, from the lowest up."""
        return tuple(part for layer in self.blocks for part in layer.empty(rows))

    def state_of(self, state: Summary, layer: int) -> Summary:
        """Return the state of one layer."""
        parts = self.cfg.cell.parts
        return state[layer * parts : (layer + 1) * parts]

    def run(self, layer: int, x: Tensor, state: Summary, rows: TextRows | None, *, exact: bool) -> Reading:
        """Run one layer over all steps, from its part of ``state``; return its outputs and its state."""
        block, before = self.blocks[layer], self.state_of(state, layer)
        if x.shape[1] > 1 or rows is not None or torch.is_grad_enabled():
            y, after = read_texts(block, x, rows, before, exact=exact)
            return block.outputs(y), after
        after = block.step(x[:, 0], before)
        return block.outputs(after[0][:, None].to(x.dtype)), after

    def above(self, layer: int, x: Tensor, y: Tensor) -> Tensor:
        """Return the input of the next layer: the output ``y`` with dropout, and ``x`` where there is a shortcut."""
        y = self.dropout(y)
        return x + y if self.cfg.shortcut.applies(layer) else y


class PlainDecoder(RecurrentDecoder):
    """Decoder whose layers read all steps at once."""

    def __init__(self, cfg: RecurrentStackConfig, dim: int, attention: DecoderAttention, memory: int | None):  # pyright: ignore[reportInvalidTypeForm]
        hidden = cfg.channels(dim)
        super().__init__(cfg, dim, [dim, *[hidden] * (cfg.depth - 1)])
        self.attends = isinstance(attention, Luong)
        if self.attends:
            assert memory is not None
            with at("attention"):
                self.cross = build_attention(attention, hidden, memory)
            self.readout = Linear(hidden + memory, dim, bias=False)
        else:
            self.readout = nn.Identity() if hidden == dim else Linear(hidden, dim)

    def read(
        self,
        x: Tensor,
        state: Summary,
        source: Source | None = None,
        rows: TextRows | None = None,
        *,
        exact: bool = True,
    ) -> Reading:
        after: list[Tensor] = []
        for layer in range(len(self.blocks)):
            y, states = self.run(layer, x, state, rows, exact=exact)
            x, after = self.above(layer, x, y), [*after, *states]
        if self.attends:
            assert source is not None
            context, weights = self.cross(self.cross.q(x), *source)
            observe(self.cross, [weights])
            return self.dropout(self.readout(torch.cat([x, context], dim=-1)).tanh()), tuple(after)
        return self.readout(x), tuple(after)


class EarlyAttentionDecoder(RecurrentDecoder):
    """Decoder that attends from the lowest layer's last state, and reads the context with the next token."""

    def __init__(self, cfg: RecurrentStackConfig, dim: int, attention: DecoderAttention, memory: int):  # pyright: ignore[reportInvalidTypeForm]
        hidden, self_gives = cfg.channels(dim), isinstance(attention, GnmtAttention)
        above = hidden + memory if self_gives else hidden
        super().__init__(cfg, dim, [dim + memory, *[above] * (cfg.depth - 1)])
        self.gives_context = self_gives
        """True where every layer reads the context, and the top layer alone is the output."""
        with at("attention"):
            self.cross = build_attention(attention, hidden, memory)
        if not self_gives:
            self.readout = Linear(hidden + memory + dim, dim)
        else:
            self.readout = nn.Identity() if hidden == dim else Linear(hidden, dim)

    def read(
        self,
        x: Tensor,
        state: Summary,
        source: Source | None = None,
        rows: TextRows | None = None,
        *,
        exact: bool = True,
    ) -> Reading:
        assert source is not None
        y, context, states = self.lowest(x, self.state_of(state, 0), source, rows)
        below, after = self.above(0, x, y), [*states]
        for layer in range(1, len(self.blocks)):
            given = torch.cat([below, context], dim=-1) if self.gives_context else below
            y, states = self.run(layer, given, state, rows, exact=exact)
            below, after = self.above(layer, below, y), [*after, *states]
        if self.gives_context:
            return self.readout(below), tuple(after)
        return self.dropout(self.readout(torch.cat([below, context, x], dim=-1)).tanh()), tuple(after)

    def lowest(
        self, x: Tensor, state: Summary, source: Source, rows: TextRows | None
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B T E"], Summary]:
        """Run the lowest layer step by step; return its outputs, its contexts, and its state."""
        loop, project = LayerLoop(self.blocks[0], x), in_loop(self.cross.q)
        outputs, contexts, weights = [], [], []
        for t in range(x.shape[1]):
            context, weight = self.cross(project(state[0].to(x.dtype))[:, None], *source)
            state = loop.step(t, context[:, 0], state, rows)
            outputs.append(state[0])
            contexts.append(context)
            weights.append(weight)
        observe(self.cross, weights)
        given = self.blocks[0].outputs
        if len(outputs) == 1:
            return given(outputs[0][:, None].to(x.dtype)), contexts[0], state
        return given(torch.stack(outputs, dim=1).to(x.dtype)), torch.cat(contexts, dim=1), state


class FeedingDecoder(RecurrentDecoder):
    """Decoder that reads its last output with each token: the last part of its state."""

    def __init__(self, cfg: RecurrentStackConfig, dim: int, attention: DecoderAttention, memory: int):  # pyright: ignore[reportInvalidTypeForm]
        hidden = cfg.channels(dim)
        super().__init__(cfg, dim, [2 * dim, *[hidden] * (cfg.depth - 1)])
        with at("attention"):
            self.cross = build_attention(attention, hidden, memory)
        self.readout = Linear(hidden + memory, dim, bias=False)

    def empty(self, rows: int) -> Summary:
        layers = super().empty(rows)
        return (*layers, layers[0].new_zeros(rows, self.readout.out_features))

    def read(
        self,
        x: Tensor,
        state: Summary,
        source: Source | None = None,
        rows: TextRows | None = None,
        *,
        exact: bool = True,
    ) -> Reading:
        assert source is not None
        loops = [LayerLoop(self.blocks[0], x), *(LayerLoop(block, None, x.shape[1]) for block in self.blocks[1:])]
        project, readout = in_loop(self.cross.q), in_loop(self.readout)
        states, feed = [self.state_of(state, i) for i in range(len(loops))], state[-1]
        masks = [self.masks(x, self.hidden) for _ in loops]
        outputs_of = [block.outputs for block in self.blocks]
        last, outputs, weights = self.masks(x, x.shape[2]), [], []
        for t in range(x.shape[1]):
            below, given = x[:, t], feed.to(x.dtype)
            for i, loop in enumerate(loops):
                states[i] = loop.step(t, given, states[i], rows)
                given = dropped(outputs_of[i](states[i][0].to(x.dtype)), masks[i], t)
                given = below + given if self.cfg.shortcut.applies(i) else given
                below = given
            context, weight = self.cross(project(below)[:, None], *source)
            new = readout(torch.cat([below, context[:, 0].to(x.dtype)], dim=-1)).tanh()
            new = dropped(new, last, t)
            outputs.append(new)
            weights.append(weight)
            feed = kept(new.to(feed.dtype), feed, rows, t)
        observe(self.cross, weights)
        return torch.stack(outputs, dim=1), (*(part for each in states for part in each), feed)

    def masks(self, x: Tensor, channels: int) -> Float[Tensor, "B T C"] | None:
        """Return factors of dropout for all steps; None where there is none."""
        if not (self.training and self.dropout.rate):
            return None
        return self.dropout(x.new_ones(*x.shape[:2], channels))


class LayerLoop:
    """A layer run step by step: tokens are multiplied for all steps at once, what each step gives is read with them."""

    def __init__(self, layer: RecurrentLayer, x: Float[Tensor, "B T D"] | None, steps: int = 0):
        self.layer, self.x = layer, x
        steps, tokens = (steps, 0) if x is None else x.shape[1:]
        self.direct = steps == 1 and not torch.is_grad_enabled()
        """True in a step of decoding, which is one call of PyTorch's cell."""
        if self.direct:
            return
        self.by_state = step_product(layer.weight_hh, layer.bias_hh, layer.product)
        bias = layer.bias_ih if x is None else None
        self.by_given = step_product(layer.weight_ih[:, tokens:].contiguous(), bias, layer.product)
        if x is not None:
            weight = layer.weight_ih[:, :tokens].contiguous()
            self.by_token = layer.product(x.transpose(0, 1).contiguous(), weight, layer.bias_ih).unbind(0)

    def step(self, t: int, given: Float[Tensor, "B C"], state: Summary, rows: TextRows | None) -> Summary:
        """Read token ``t`` and what the step gives; return the state, which padding leaves as it is."""
        new = self.read(t, given, state)
        return tuple(kept(after, before, rows, t) for after, before in zip(new, state, strict=True))

    def read(self, t: int, given: Tensor, state: Summary) -> Summary:
        if self.direct:
            return self.layer.step(given if self.x is None else torch.cat([self.x[:, t], given], dim=1), state)
        by_input = self.by_given(given)
        if self.x is not None:
            by_input = by_input + self.by_token[t]
        return self.layer.cell.combine(by_input, self.by_state(state[0]), state)


def kept(new: Float[Tensor, "B C"], old: Float[Tensor, "B C"], rows: TextRows | None, t: int) -> Float[Tensor, "B C"]:
    """Return ``new``, and ``old`` in the rows where token ``t`` is padding."""
    return new if rows is None else torch.where(rows.real[:, t, None], new, old)


def dropped(x: Float[Tensor, "B C"], masks: Float[Tensor, "B T C"] | None, t: int) -> Float[Tensor, "B C"]:
    return x if masks is None else x * masks[:, t]


def observe(cross: SourceAttention, weights: Sequence[Float[Tensor, "N Q S"]]) -> None:
    """Give the weights of all steps, (N, W, S) each, to the hooks on them as (N, 1, W T, S)."""
    if cross.observed:
        cross.weights(torch.stack([*weights], dim=2).flatten(1, 2)[:, None])


def build_decoder(
    cfg: RecurrentStackConfig,
    dim: int,
    attention: DecoderAttention,  # pyright: ignore[reportInvalidTypeForm]
    memory: int | None,
) -> RecurrentDecoder:
    """Build the decoder, which attends to source vectors of width ``memory``.

    Raises:
        ConfigError: sizes or directions that do not fit; the message opens with ``decoder`` or ``attention``.
    """
    with at("decoder"):
        check_decoder(cfg, dim)
    if isinstance(attention, NoSourceAttention) or (isinstance(attention, Luong) and not attention.input_feeding):
        return PlainDecoder(cfg, dim, attention, memory)
    assert memory is not None, "checked before"
    kind = EarlyAttentionDecoder if isinstance(attention, Bahdanau | GnmtAttention) else FeedingDecoder
    return kind(cfg, dim, attention, memory)
