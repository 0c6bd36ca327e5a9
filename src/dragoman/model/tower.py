"""A stack of blocks, common to all models whatever their inputs and outputs.

B batch, T length, D width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, cast

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, at, config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.attention import Attention, AttentionConfig, AttentionContext
from dragoman.model.bidirectional import Bidirectional, Recurrent
from dragoman.model.big_bird import BigBird
from dragoman.model.caches.state import KV, KVPolicy, LayerState, TowerState, stateless
from dragoman.model.disentangled import DisentangledAttention
from dragoman.model.dropout import DropoutRate
from dragoman.model.init import Init, initialize, scale_outputs
from dragoman.model.layer_stack import LayerStack, StackConfig
from dragoman.model.linear_attention import LinearAttention
from dragoman.model.linformer import Linformer
from dragoman.model.longformer import Longformer
from dragoman.model.masks.visibility import VisibilityRule, build_cross_mask
from dragoman.model.memory import Memory
from dragoman.model.mlp import FeedForward, Gated, NoFeedForward
from dragoman.model.moe import Mixture
from dragoman.model.norm import (
    Depths,
    LayerScale,
    LayerScaledResidual,
    NoNorm,
    NoResidual,
    Norm,
    Placement,
    PlainResidual,
    Residual,
    ResidualScaling,
)
from dragoman.model.positions.effect import PositionEffect, RelativeScheme
from dragoman.model.positions.position import NoPosition
from dragoman.model.positions.tokens import Positions
from dragoman.model.reformer import Reformer
from dragoman.model.short_convolution import ShortConvolution
from dragoman.model.sparse_transformer import FixedAttention, StridedAttention

Mixer = Annotated[
    (AttentionConfig | ShortConvolution)
    | (Recurrent | Bidirectional)
    | (LinearAttention | Linformer | DisentangledAttention)
    | (Longformer | BigBird | StridedAttention | FixedAttention | Reformer),
    OneOf(usual="attention"),
]
"""Layer through which tokens exchange information: see mixer.py."""
Mlp = Annotated[FeedForward | Gated | Mixture | NoFeedForward, OneOf()]

# ---- block ----------------------------------------------------------------------------------------


@config
class BlockConfig:
    """Configuration of one block: mixer, optional cross-attention, optional feed-forward, and the norms around them."""

    mixer: Mixer
    """Layer through which tokens exchange information: attention is one choice."""
    cross: AttentionConfig | None = None
    """Attention to the encoder, in the decoder of an encoder-decoder."""
    mlp: Mlp
    norm: Norm
    placement: Placement = "pre"
    """Position of the norms: after the sum (2017), before the sublayer, around it, or on its output; ``pre_mlp`` is
    before the feed-forward alone, where the embeddings have a norm and the first block reads them."""
    residual: ResidualScaling = PlainResidual()
    dropout: DropoutRate = 0.0
    """Dropout on each sublayer's output."""

    @property
    def sublayers(self) -> int:
        """Number of layers with a residual connection."""
        return 1 + (self.cross is not None) + (not isinstance(self.mlp, NoFeedForward))

    @property
    def attention(self) -> AttentionConfig:
        """The mixer as attention, for file formats that know no other one.

        Raises:
            ConfigError: the mixer is not attention.
        """
        if not isinstance(self.mixer, AttentionConfig):
            raise ConfigError(f"mixer: {kind_of(type(self.mixer))}, where only attention is known")
        return self.mixer


class Block(nn.Module):
    """Mixer, cross-attention where there is an encoder, and feed-forward, each with a residual connection."""

    cross: Attention
    """Cross-attention; missing where the configuration has none."""

    def __init__(self, cfg: BlockConfig, dim: int, residual_scale: float = 1.0):
        super().__init__()
        with at("mixer"):
            self.mixer = cfg.mixer.build(dim)
        with at("mlp"):
            self.mlp = cfg.mlp.build(dim)

        def residual(norm: Norm = cfg.norm) -> Residual:
            if isinstance(cfg.residual, LayerScale):
                return LayerScaledResidual(norm, cfg.placement, dim, cfg.dropout, cfg.residual.initial)
            return Residual(norm, cfg.placement, dim, cfg.dropout, residual_scale)

        self.mixer_residual = residual(NoNorm()) if cfg.placement == "pre_mlp" else residual()
        self.mlp_residual = NoResidual() if isinstance(cfg.mlp, NoFeedForward) else residual()
        if cfg.cross:
            with at("cross"):
                self.cross = cfg.cross.build(dim)
                if not isinstance(cfg.cross.position, NoPosition):
                    raise ConfigError("position: source and target share no positions; only no_position fits here")
            self.cross_residual = residual()

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: Any,
        state: LayerState,
        real: Bool[Tensor, "B T"] | None = None,
        across: AttentionContext | None = None,
        source: Callable[[Attention], KV] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Mix, attend to the source where there is one, and feed forward.

        Args:
            x: the residual stream, one vector for each token.
            context: what the mixer needs to know about this forward: see ``MixerLayer.context``.
            state: the mixer's cache.
            real: False on padding.
            across: context of the cross-attention.
            source: returns the source's keys and values for a cross-attention layer.
        """
        x = self.mixer_residual(x, lambda y: self.mixer(y, context, state))
        if across is not None and source is not None:
            x = self.cross_residual(x, lambda y: self.cross.read(y, across, source(self.cross)))
        return self.mlp_residual(x, lambda y: self.mlp(y, real))


def share_parameters(block: Block, owner: Block) -> None:
    """Give ``block`` the parameters of ``owner``, which has the same shape."""
    if block is owner:
        return
    for name, parameter in owner.named_parameters():
        part, _, leaf = name.rpartition(".")
        block.get_submodule(part).register_parameter(leaf, parameter)


# ---- tower ----------------------------------------------------------------------------------------


@config
class TowerConfig(StackConfig):
    """Configuration of a stack of ``depth`` blocks."""

    depth: PositiveInt
    pattern: tuple[BlockConfig, ...]
    """Layer i uses pattern[i % len(pattern)]: one entry for a uniform stack, six for Gemma 3's 5 local : 1 global."""
    final_norm: Norm = NoNorm()

    def owner(self, layer: int) -> int:
        """Return the layer whose weights a layer has: itself, where none are shared."""
        return layer

    @property
    def longest(self) -> int | None:
        """Longest text in tokens that every mixer takes; None for no limit."""
        return min((block.mixer.longest for block in self.pattern if block.mixer.longest is not None), default=None)

    def check_grid(self, inputs: object) -> None:
        """Refuse positions in a grid where ``inputs`` have none.

        Raises:
            ConfigError: a mixer needs rows and columns, and the inputs are texts or frames.
        """
        if not getattr(inputs, "has_grid", False):
            for i, block in enumerate(self.pattern):
                if block.mixer.needs_grid:
                    raise ConfigError(
                        f"pattern.{i}.mixer.position: rotary_grid turns by rows and columns, and what is read here has "
                        "none; use rotary"
                    )

    def build_tower(self, dim: int, inputs: object, init: Init) -> "Tower":
        """Build the tower of an encoder model that reads ``inputs``.

        Raises:
            ConfigError: sizes or parts that do not fit; the message opens with the field.
        """
        for i, part in enumerate(self.pattern):
            if part.cross is not None:
                raise ConfigError(f"pattern.{i}.cross: there is nothing to attend across to; leave it out")
        self.check_grid(inputs)
        return Tower(self, dim, Depths(self.depth, 0), init, is_encoder=True)


@config
class SharedTower(TowerConfig):
    """Configuration of a stack whose layers share their weights in groups (ALBERT, arXiv:1909.11942, section 3.1)."""

    groups: PositiveInt = 1
    """Number of groups of successive layers; the layers of each have the same weights."""

    def owner(self, layer: int) -> int:
        return -(-(layer * self.groups // self.depth) * self.depth // self.groups)

    def build_tower(self, dim: int, inputs: object, init: Init) -> "Tower":
        if self.groups > self.depth:
            raise ConfigError(f"groups: {self.groups} groups, and {self.depth} layers to divide among them")
        for layer in range(self.depth):
            if self.pattern[layer % len(self.pattern)] != self.pattern[self.owner(layer) % len(self.pattern)]:
                raise ConfigError("pattern: layers that share their weights must be equal")
        return super().build_tower(dim, inputs, init)


class Tower(LayerStack):
    """Stack of blocks with a final norm."""

    blocks: Sequence[Block]

    def __init__(self, cfg: TowerConfig, dim: int, depths: Depths, init: Init, *, is_encoder: bool):
        super().__init__()
        if not cfg.pattern:
            raise ConfigError("pattern: must have at least one entry")
        blocks, schemes = [], []
        known: dict[object, int] = {}
        self.kinds: list[tuple[int, VisibilityRule]] = []
        """For each layer the index of its position scheme in ``schemes``, and its visibility."""
        for i in range(cfg.depth):
            part = cfg.pattern[i % len(cfg.pattern)]
            with at(f"pattern.{i % len(cfg.pattern)}"):
                scale = part.residual.scale(depths, is_encoder, part.placement)
                block = Block(part, dim, scale.residual_scale)
                initialize(block, init, dim)
                scale_outputs(block, init, part.sublayers * cfg.depth, scale.gain)
                blocks.append(block)
                share_parameters(block, blocks[cfg.owner(i)])
                with at("mixer"):
                    if not is_encoder:
                        part.mixer.check_decoder()
                    key = part.mixer.position_key(dim)
                    if key is None or key not in known:
                        schemes.append(part.mixer.build_position(dim))
                        known[key] = len(schemes) - 1
            self.kinds.append((known[key], part.mixer.visibility))
        self.blocks = cast(Sequence[Block], nn.ModuleList(blocks))
        self.schemes = cast(Sequence[RelativeScheme], nn.ModuleList(schemes))
        self.final_norm = cfg.final_norm.build(dim)

    def new_state(self, policy: KVPolicy) -> TowerState:
        """Return an empty state: a cache for each layer, chosen by ``policy``."""
        mixers = [block.mixer for block in self.blocks]
        return TowerState([mixer.new_state(policy) for mixer in mixers], [mixer.visible(policy) for mixer in mixers])

    def read(self, x: Float[Tensor, "B T D"], positions: Positions) -> Float[Tensor, "B T D"]:
        """Run all blocks over whole inputs, as an encoder model does."""
        return self(x, positions, self.new_state(stateless), positions.keep)

    def sees_as_trained(self, policy: KVPolicy) -> bool:
        """Return whether every layer, decoding with ``policy``, sees as many tokens as in training."""
        return all(block.mixer.visible(policy) == block.mixer.visibility for block in self.blocks)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        new: Positions,
        state: TowerState,
        real: Bool[Tensor, "B T"] | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Run all blocks over the newest tokens.

        Args:
            x: vectors of the newest tokens.
            new: their positions; they follow the tokens in ``state``.
            state: caches of all layers; updated.
            real: False on padding; None when nothing is padded.
            memory: the encoded source, for cross-attention.
        """
        contexts, across = self.contexts(x, new, state, real), self.cross_contexts(x, new, memory)
        for i, block in enumerate(self.blocks):
            source = memory and partial(memory.read, i)
            x = self.run_block(block, x, contexts[i], state.layers[i], real, across[i], source)
        return self.final_norm(x)

    def contexts(self, x: Tensor, new: Positions, state: TowerState, real: Tensor | None) -> list[Any]:
        """Compute each layer's context, once for all layers of equal mixer class, position scheme and visibility."""
        dtype, seen = torch.promote_types(x.dtype, torch.float32), state.advance(new)
        made, found = {}, []
        for block, (scheme, _), visibility in zip(self.blocks, self.kinds, state.visibilities, strict=True):
            kind = (block.mixer.context_key, scheme, visibility)
            if kind not in made:
                made[kind] = block.mixer.context(new, seen[visibility], self.schemes[scheme], real, dtype)
            found.append(made[kind])
        return found

    def cross_contexts(self, x: Tensor, new: Positions, memory: Memory | None) -> Sequence[AttentionContext | None]:
        """Compute each layer's context for attention to the source; the beams of a sentence count as one row."""
        if memory is None:
            return [None] * len(self.blocks)
        new = new.merge_beams(memory.sentences, x.shape[0] // memory.sentences)
        choices = [block.cross.cfg.visibility for block in self.blocks]
        made = {
            v: AttentionContext(build_cross_mask(v, new, memory.positions), PositionEffect(), None)
            for v in set(choices)
        }
        return [made[choice] for choice in choices]
