"""The Transformer, 2017 to today: encoder, decoder, or both. Read this file first.

B batch, T target length, S source length, D width, V vocabulary, N sentences, R rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dragoman.config import OneOf, at, config
from dragoman.errors import ConfigError, DataError
from dragoman.model.attention import Attention, AttentionConfig, View
from dragoman.model.dropout import Dropout, Share
from dragoman.model.init import Init, Xavier, initialize, initialize_embedding, scale_outputs
from dragoman.model.interface import DecodingState, SequenceModel
from dragoman.model.memory import Memory, ProjectedMemory, TransformerState
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.moe import Mixture
from dragoman.model.norm import Depths, NoNorm, Norm, Placement, PlainResidual, Residual, ResidualScaling
from dragoman.model.places import PAD, Places, Tokens, stand
from dragoman.model.position import AbsolutePosition, NoEmbedding, NoPosition
from dragoman.model.relation import Relation, RelativeScheme
from dragoman.model.state import KV, KVPolicy, LayerState, Seen, TowerState, growing, stateless
from dragoman.model.visibility import Causal, Visibility, look, look_across

Mixer = AttentionConfig
"""How tokens exchange information; a further mixer joins here as a union."""
Mlp = Annotated[FeedForward | Gated | Mixture, OneOf()]

# ---- block ----------------------------------------------------------------------------------------


@config
class BlockConfig:
    mixer: Mixer
    """How tokens exchange information. Named for its role: attention is one filling."""
    cross: AttentionConfig | None = None
    """Attention to the encoder, in the decoder of an encoder-decoder."""
    mlp: Mlp
    norm: Norm
    placement: Placement = "pre"
    """Where the norms stand: after the sum (2017), before the sublayer, around it, or on its output."""
    residual: ResidualScaling = PlainResidual()
    dropout: Share = 0.0
    """On each sublayer's output."""


class Block(nn.Module):
    cross: Attention
    """Only where the configuration has one."""

    def __init__(self, cfg: BlockConfig, dim: int, carry: float = 1.0):
        super().__init__()
        with at("mixer"):
            self.mixer = cfg.mixer.build(dim)
        with at("mlp"):
            self.mlp = cfg.mlp.build(dim)

        def residual() -> Residual:
            return Residual(cfg.norm, cfg.placement, dim, cfg.dropout, carry)

        self.mixer_residual, self.mlp_residual = residual(), residual()
        if cfg.cross:
            with at("cross"):
                self.cross = cfg.cross.build(dim)
                if not isinstance(cfg.cross.position, NoPosition):
                    raise ConfigError("position: source and target share no positions; only no_position fits here")
            self.cross_residual = residual()

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        view: View,
        state: LayerState,
        across: View | None = None,
        source: Callable[[Attention], KV] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """``source`` gives what the cross-attention is to read, seen as ``across`` says."""
        x = self.mixer_residual(x, lambda y: self.mixer(y, view, state))
        if across is not None and source is not None:
            x = self.cross_residual(x, lambda y: self.cross.read(y, across, source(self.cross)))
        return self.mlp_residual(x, lambda y: self.mlp(y, view.real))


# ---- tower ----------------------------------------------------------------------------------------


@config
class TowerConfig:
    depth: PositiveInt
    pattern: tuple[BlockConfig, ...]
    """Layer i uses pattern[i % len(pattern)]: one entry for a uniform stack, six for Gemma 3's 5 local : 1 global."""
    final_norm: Norm = NoNorm()


class Tower(nn.Module):
    recompute: bool = False
    """Activation checkpointing: keep only each block's input for the backward pass and compute the rest again."""

    def __init__(self, cfg: TowerConfig, dim: int, depths: Depths, init: Init, *, is_encoder: bool):
        super().__init__()
        if not cfg.pattern:
            raise ConfigError("pattern: must have at least one entry")
        blocks, schemes = [], []
        known: dict[object, int] = {}
        self.kinds: list[tuple[int, Visibility]] = []
        """For each layer the position scheme it uses, one of ``schemes``, and whom its tokens see."""
        for i in range(cfg.depth):
            part = cfg.pattern[i % len(cfg.pattern)]
            with at(f"pattern.{i % len(cfg.pattern)}"):
                scale = part.residual.scale(depths, is_encoder, part.placement)
                block = Block(part, dim, scale.carry)
                initialize(block, init, dim)
                scale_outputs(block, init, (2 + (part.cross is not None)) * cfg.depth, scale.gain)
                blocks.append(block)
                key = (part.mixer.position, part.mixer.heads, part.mixer.channels(dim))
                if key not in known or not part.mixer.position.shared:
                    with at("mixer"):
                        schemes.append(part.mixer.build_position(dim))
                    known[key] = len(schemes) - 1
            self.kinds.append((known[key], part.mixer.visibility))
        self.blocks = cast(Sequence[Block], nn.ModuleList(blocks))
        self.schemes = cast(Sequence[RelativeScheme], nn.ModuleList(schemes))
        self.final_norm = cfg.final_norm.build(dim)

    def new_state(self, policy: KVPolicy) -> TowerState:
        return TowerState([block.mixer.new_state(policy) for block in self.blocks], [v for _, v in self.kinds])

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        new: Places,
        state: TowerState,
        real: Bool[Tensor, "B T"] | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B T D"]:
        """``new`` says where the tokens of ``x`` stand; they follow those in ``state``. ``real``: False on padding."""
        views, across = self.views(x, new, state.advance(new), real), self.views_across(x, new, memory)
        for i, block in enumerate(self.blocks):
            source = memory and partial(memory.read, i)
            arguments = (x, views[i], state.layers[i], across[i], source)
            if self.recompute and self.training:
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
        return self.final_norm(x)

    def views(self, x: Tensor, new: Places, seen: dict[Visibility, Seen], real: Tensor | None) -> list[View]:
        """One view for each layer; layers with equal visibility and positions share it."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        made = {}
        for scheme, visibility in dict.fromkeys(self.kinds):
            places, lasting = seen[visibility]
            relation = self.schemes[scheme].relate(new, places, dtype)
            made[scheme, visibility] = View(look(visibility, new, places), relation, real, lasting)
        return [made[kind] for kind in self.kinds]

    def views_across(self, x: Tensor, new: Places, memory: Memory | None) -> Sequence[View | None]:
        if memory is None:
            return [None] * len(self.blocks)
        new = new.abreast(memory.sentences, len(x) // memory.sentences)
        choices = [block.cross.cfg.visibility for block in self.blocks]
        made = {v: View(look_across(v, new, memory.places), Relation(), None, None) for v in set(choices)}
        return [made[choice] for choice in choices]


# ---- model ----------------------------------------------------------------------------------------

Tying = Literal["all", "target", "inputs", "none"]


@config
class TransformerConfig:
    vocab: PositiveInt | None = None
    """Target vocabulary V; None until the tokenizer tells."""
    source_vocab: PositiveInt | None = None
    """Source vocabulary where it is another; None when both sides share one."""
    dim: PositiveInt
    """Width D."""
    encoder: TowerConfig | None = None
    decoder: TowerConfig
    position: AbsolutePosition = NoEmbedding()
    scale_embedding: bool = False
    """Multiply embeddings by sqrt(D) (Vaswani et al. 2017, section 3.4)."""
    embedding_norm: Norm = NoNorm()
    tying: Tying = "all"
    """Which of source embedding, target embedding and output projection are one matrix: all three, the two of the
    target, the two inputs, or none."""
    output_bias: bool = False
    dropout: Share = 0.0
    """On the sum of embeddings and positions."""
    init: Init = Xavier()

    def build(self) -> "Transformer":
        """Raises ConfigError, naming the path, where sizes do not fit one another."""
        with at("model"):
            return Transformer(self)


class Embedding(nn.Module):
    """Ids to vectors, with their absolute positions."""

    def __init__(self, cfg: TransformerConfig, vocab: int):
        super().__init__()
        self.tokens = nn.Embedding(vocab, cfg.dim)
        self.position = cfg.position.build(cfg.dim)
        self.norm, self.dropout = cfg.embedding_norm.build(cfg.dim), Dropout(cfg.dropout)
        self.scale = cfg.dim**0.5 if cfg.scale_embedding else 1.0

    def forward(self, ids: Int[Tensor, "B T"], places: Places) -> Float[Tensor, "B T D"]:
        return self.dropout(self.norm(self.position(self.tokens(ids) * self.scale, places.pos)))


class Transformer(SequenceModel):
    def __init__(self, cfg: TransformerConfig):
        super().__init__()
        if cfg.vocab is None:
            raise ConfigError("vocab: must be given before the model is built; training sets it from the tokenizer")
        self.cfg = cfg
        _check_cross(cfg)
        depths = Depths(cfg.encoder.depth if cfg.encoder else 0, cfg.decoder.depth)
        self.embed = Embedding(cfg, cfg.vocab)
        self.output = nn.Linear(cfg.dim, cfg.vocab, bias=cfg.output_bias)
        initialize(self.output, cfg.init, cfg.dim)
        if cfg.encoder:
            self.source_embed = Embedding(cfg, cfg.source_vocab or cfg.vocab)
            with at("encoder"):
                self.encoder = Tower(cfg.encoder, cfg.dim, depths, cfg.init, is_encoder=True)
        with at("decoder"):
            self.decoder = Tower(cfg.decoder, cfg.dim, depths, cfg.init, is_encoder=False)
        for table in (m for m in self.modules() if isinstance(m, nn.Embedding)):
            initialize_embedding(table.weight, cfg.init, cfg.dim)
        self.tie()
        self.sees_only_past = all(isinstance(visibility, Causal) for _, visibility in self.decoder.kinds)

    def tie(self) -> None:
        cfg = self.cfg
        if cfg.tying in ("all", "target"):
            self.output.weight = self.embed.tokens.weight
        if cfg.encoder and cfg.tying in ("all", "inputs"):
            if cfg.source_vocab not in (None, cfg.vocab):
                raise ConfigError(
                    f"tying: '{cfg.tying}' shares one matrix between source and target, but their vocabularies "
                    f"have {cfg.source_vocab} and {cfg.vocab} entries; use 'target' or a joint tokenizer"
                )
            self.source_embed.tokens.weight = self.embed.tokens.weight

    @property
    def max_length(self) -> int | None:
        return self.cfg.position.length

    def hidden(self, target: Tensor | Tokens, source: Tensor | Tokens | None = None) -> Float[Tensor, "B T D"]:
        memory, state = self.encode(source), self.decoder.new_state(stateless)
        tokens = _as_tokens(target)
        places = self.place(tokens, state)
        real = places.keep
        if self.sees_only_past and not isinstance(target, Tokens):  # padding is on the right, where nobody looks
            places = stand(Tokens(tokens.ids))
        return self.decoder(self.embed(tokens.ids, places), places, state, real, memory)

    def start(self, source: Tensor | Tokens | None, policy: KVPolicy = growing) -> TransformerState:
        memory = self.encode(source)
        if memory is not None:
            memory = ProjectedMemory(memory, [block.cross for block in self.decoder.blocks])
        return TransformerState(self.decoder.new_state(policy), memory)

    def decode(self, tokens: Tensor | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        assert isinstance(state, TransformerState)
        if not isinstance(tokens, Tokens):
            tokens = Tokens(tokens) if tokens.shape[1] == 1 else _as_tokens(tokens, wait=True)
        state.rows = len(tokens.ids)
        places = self.place(tokens, state.tower)
        return self.output(self.decoder(self.embed(tokens.ids, places), places, state.tower, places.keep, state.memory))

    def encode(self, source: Tensor | Tokens | None) -> Memory | None:
        """The source as the decoder reads it; None where there is no encoder."""
        if (source is None) != (self.cfg.encoder is None):
            raise ValueError(
                "this model translates: it needs a source"
                if source is None
                else "this model has no encoder: it continues text, it does not translate a source"
            )
        if source is None:
            return None
        tokens, state = _as_tokens(source), self.encoder.new_state(stateless)
        places = self.place(tokens, state)
        return Memory(self.encoder(self.source_embed(tokens.ids, places), places, state, places.keep), places)

    def place(self, tokens: Tokens, state: TowerState) -> Places:
        """Where ``tokens`` stand, behind those that ``state`` has seen."""
        places = stand(tokens, state.last)
        if self.max_length is not None and state.length + tokens.ids.shape[1] > self.max_length:  # counts padding too
            needed = int(places.pos.max()) + 1
            if needed > self.max_length:
                raise DataError(
                    f"model.position: a text of {needed} tokens, and learned positions for {self.max_length}: "
                    "shorten the text, or train with a larger length or with positions that are not learned"
                )
        return places


def _check_cross(cfg: TransformerConfig) -> None:
    for i, part in enumerate(cfg.decoder.pattern):
        if cfg.encoder is not None and part.cross is None:
            raise ConfigError(
                f"decoder.pattern.{i}.cross: must be given, for the decoder to read what the encoder says"
            )
        if cfg.encoder is None and part.cross is not None:
            raise ConfigError(
                f"decoder.pattern.{i}.cross: there is no encoder to attend to; give one or leave this out"
            )
    for i, part in enumerate(cfg.encoder.pattern if cfg.encoder else ()):
        if part.cross is not None:
            raise ConfigError(f"encoder.pattern.{i}.cross: only a decoder attends across")


def _as_tokens(given: Tensor | Tokens, *, wait: bool = False) -> Tokens:
    """Ids alone are padded on the right, with PAD."""
    if isinstance(given, Tokens):
        return given
    keep = given != PAD
    if (wait or keep.device.type == "cpu") and bool(keep.all()):  # elsewhere the answer costs a wait for the device
        return Tokens(given)
    return Tokens(given, keep)
