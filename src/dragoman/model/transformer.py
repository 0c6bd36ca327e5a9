"""The Transformer, 2017 to today: encoder, decoder, or both. Read this file first.

B batch, T target length, S source length, D width, V vocabulary, N sentences, R rows.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dragoman.config import ConfigError, OneOf, at, config
from dragoman.model.attention import Attention, AttentionConfig, View
from dragoman.model.dropout import Dropout
from dragoman.model.init import Init, Xavier, initialize, initialize_embedding, scale_outputs
from dragoman.model.interface import PAD, DecodingState, SequenceModel, Tokens
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.moe import Mixture
from dragoman.model.norm import Depths, NoNorm, Norm, Placement, PlainResidual, Residual, ResidualScaling
from dragoman.model.position import AbsolutePosition, NoEmbedding, NoPosition
from dragoman.model.relation import Relation, RelativeScheme
from dragoman.model.state import KV, KVPolicy, LayerState, TowerState, growing, stateless
from dragoman.model.visibility import Causal, Places, look, look_across

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
    dropout: float = 0.0
    """On each sublayer's output."""


class Block(nn.Module):
    def __init__(self, cfg: BlockConfig, dim: int, carry: float):
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
        self, x: Float[Tensor, "B T D"], view: View, state: LayerState, across: View | None, source: "Tensor | KV | None"
    ) -> Float[Tensor, "B T D"]:
        x = self.mixer_residual(x, lambda y: self.mixer(y, view, state))
        if across is not None and source is not None:
            kv = self.cross.key_value(source) if isinstance(source, Tensor) else source
            x = self.cross_residual(x, lambda y: self.cross.read(y, across, kv))
        return self.mlp_residual(x, lambda y: self.mlp(y, view.real))


# ---- tower ----------------------------------------------------------------------------------------


@config
class TowerConfig:
    depth: int
    pattern: tuple[BlockConfig, ...]
    """Layer i uses pattern[i % len(pattern)]: one entry for a uniform stack, six for Gemma 3's 5 local : 1 global."""
    final_norm: Norm = NoNorm()


class Memory:
    """An encoded source, as training sees it: each cross-attention projects it as it comes by."""

    def __init__(self, x: Float[Tensor, "N S D"], places: Places):
        self.x, self.places = x, places

    def read(self, layer: int) -> Tensor | KV:
        return self.x


class ProjectedMemory(Memory):
    """The same while decoding: keys and values of every layer, projected once."""

    def __init__(self, memory: Memory, attentions: list[Attention]):
        super().__init__(memory.x, memory.places)
        self.layers = [attention.key_value(memory.x) for attention in attentions]

    def read(self, layer: int) -> Tensor | KV:
        return self.layers[layer]

    def select(self, sentences: Int[Tensor, " N"]) -> None:
        self.x, self.places = self.x.index_select(0, sentences), self.places.rows(sentences)
        self.layers = [kv.rows(sentences) for kv in self.layers]

    @property
    def nbytes(self) -> int:
        places = sum(t.nbytes for t in self.places if t is not None)
        return self.x.nbytes + places + sum(kv.nbytes for kv in self.layers)


class Tower(nn.Module):
    blocks: nn.ModuleList
    recompute: bool = False
    """Activation checkpointing: keep only each block's input for the backward pass and compute the rest again."""

    def __init__(self, cfg: TowerConfig, dim: int, depths: Depths, init: Init, *, is_encoder: bool):
        super().__init__()
        if not cfg.pattern or cfg.depth < 1:
            raise ConfigError(f"depth: {cfg.depth} layers of {len(cfg.pattern)} patterns; each needs at least one")
        self.blocks, self.schemes = nn.ModuleList(), nn.ModuleList()
        self.scheme_of: list[int] = []
        """Which relative position scheme each layer uses; layers with equal configuration share one if it is shared."""
        known: dict[object, int] = {}
        for i in range(cfg.depth):
            part = cfg.pattern[i % len(cfg.pattern)]
            scale = part.residual.scale(depths, is_encoder)
            with at(f"pattern.{i % len(cfg.pattern)}"):
                block = Block(part, dim, scale.carry)
                initialize(block, init, dim)
                scale_outputs(block, init, (2 + (part.cross is not None)) * cfg.depth, scale.gain)
                self.blocks.append(block)
                key = (part.mixer.position, part.mixer.heads, part.mixer.head_dim)
                if key not in known or not part.mixer.position.shared:
                    with at("mixer"):
                        self.schemes.append(part.mixer.build_position(dim))
                    known[key] = len(self.schemes) - 1
            self.scheme_of.append(known[key])
        self.final_norm = cfg.final_norm.build(dim)

    def new_state(self, policy: KVPolicy) -> TowerState:
        return TowerState([block.mixer.new_state(policy) for block in self.blocks])

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        new: Places,
        state: TowerState,
        real: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B T D"]:
        """``new`` says where the tokens of ``x`` stand; they follow those in ``state``. ``real`` is False on padding."""
        views, across = self.views(new, state, real), self.views_across(new, memory)
        for i, block in enumerate(self.blocks):
            source = None if memory is None else memory.read(i)
            arguments = (x, views[i], state.layers[i], across[i], source)
            x = checkpoint(block, *arguments, use_reentrant=False) if self.recompute and self.training else block(*arguments)
        return self.final_norm(x)

    def views(self, new: Places, state: TowerState, real: Tensor | None) -> list[View]:
        """One view for each layer; layers with equal visibility and positions share it."""
        past, everyone = state.length, state.extend(new)
        made: dict[object, View] = {}
        for block, layer, scheme in zip(self.blocks, state.layers, self.scheme_of, strict=True):
            key = (scheme, block.mixer.cfg.visibility)
            if key not in made:
                seen = everyone.columns(layer.columns(past, state.length))
                relation = self.schemes[scheme].relate(new, seen)
                made[key] = View(look(block.mixer.cfg.visibility, new, seen), relation, real)
        return [made[s, block.mixer.cfg.visibility] for block, s in zip(self.blocks, self.scheme_of, strict=True)]

    def views_across(self, new: Places, memory: Memory | None) -> list[View | None]:
        if memory is None:
            return [None] * len(self.blocks)
        choices = {block.cross.cfg.visibility for block in self.blocks}
        made = {choice: View(look_across(choice, new, memory.places), Relation(), None) for choice in choices}
        return [made[block.cross.cfg.visibility] for block in self.blocks]


# ---- model ----------------------------------------------------------------------------------------

Tying = Literal["all", "target", "inputs", "none"]


@config
class TransformerConfig:
    vocab: int | None = None
    """Target vocabulary; None until the tokenizer tells."""
    source_vocab: int | None = None
    """Source vocabulary where it is another; None when both sides share one."""
    dim: int
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
    dropout: float = 0.0
    """On the sum of embeddings and positions."""
    init: Init = Xavier()

    def build(self) -> "Transformer":
        """Raises ConfigError, naming the path, where sizes do not fit one another."""
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
        return self.dropout(self.norm(self.tokens(ids) * self.scale + self.position(places.pos)))


class Transformer(SequenceModel):
    def __init__(self, cfg: TransformerConfig):
        super().__init__()
        if cfg.vocab is None:
            raise ConfigError("model.vocab: must be given before the model is built; training sets it from the tokenizer")
        self.cfg = cfg
        depths = Depths(cfg.encoder.depth if cfg.encoder else 0, cfg.decoder.depth)
        self.embed = Embedding(cfg, cfg.vocab)
        self.output = nn.Linear(cfg.dim, cfg.vocab, bias=cfg.output_bias)
        initialize(self.output, cfg.init, cfg.dim)
        if cfg.encoder:
            self.source_embed = Embedding(cfg, cfg.source_vocab or cfg.vocab)
            with at("model.encoder"):
                self.encoder = Tower(cfg.encoder, cfg.dim, depths, cfg.init, is_encoder=True)
        with at("model.decoder"):
            self.decoder = Tower(cfg.decoder, cfg.dim, depths, cfg.init, is_encoder=False)
        self.check_cross()
        for table in (m for m in self.modules() if isinstance(m, nn.Embedding)):
            initialize_embedding(table.weight, cfg.init, cfg.dim)
        self.tie()
        self.sees_only_past = all(isinstance(block.mixer.cfg.visibility, Causal) for block in self.decoder.blocks)

    def check_cross(self) -> None:
        for i, part in enumerate(self.cfg.decoder.pattern):
            if (part.cross is None) != (self.cfg.encoder is None):
                have, lacks = ("an encoder", "no cross-attention to it") if part.cross is None else ("no encoder", "cross-attention")
                raise ConfigError(f"model.decoder.pattern.{i}.cross: the model has {have} and this block {lacks}")

    def tie(self) -> None:
        cfg = self.cfg
        if cfg.tying in ("all", "target"):
            self.output.weight = self.embed.tokens.weight
        if cfg.encoder and cfg.tying in ("all", "inputs"):
            if cfg.source_vocab not in (None, cfg.vocab):
                raise ConfigError(
                    f"model.tying: '{cfg.tying}' shares one matrix between source and target, but their vocabularies "
                    f"have {cfg.source_vocab} and {cfg.vocab} entries; use 'target' or a joint tokenizer"
                )
            self.source_embed.tokens.weight = self.embed.tokens.weight

    @property
    def max_length(self) -> int | None:
        return self.cfg.position.length

    def hidden(self, target: Tensor | Tokens, source: Tensor | Tokens | None = None) -> Float[Tensor, "B T D"]:
        memory = None if source is None else self.encode(source)
        return self.continued(target, self.decoder.new_state(stateless), memory)

    def encode(self, source: Int[Tensor, "B S"] | Tokens) -> Memory:
        if self.cfg.encoder is None:
            raise ValueError("this model has no encoder: it continues text, it does not translate a source")
        tokens = _as_tokens(source)
        places = self.standing(tokens, 0)
        x = self.encoder(
            self.source_embed(tokens.ids, places), places, self.encoder.new_state(stateless), places.keep
        )
        return Memory(x, places)

    def start(self, source: Int[Tensor, "B S"] | Tokens | None, policy: KVPolicy = growing) -> "TransformerState":
        memory = None
        if source is not None:
            memory = ProjectedMemory(self.encode(source), [block.cross for block in self.decoder.blocks])
        return TransformerState(self.decoder.new_state(policy), memory)

    def decode(self, tokens: Tensor | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        assert isinstance(state, TransformerState)
        state.rows = len(tokens.ids if isinstance(tokens, Tokens) else tokens)
        return self.output(self.continued(tokens, state.tower, state.memory))

    def continued(self, target: Tensor | Tokens, state: TowerState, memory: Memory | None) -> Float[Tensor, "B T D"]:
        tokens = _as_tokens(target)
        places = self.standing(tokens, state.length)
        real = places.keep
        if tokens is not target and self.sees_only_past:  # padding on the right: the past never meets it
            places = places._replace(keep=None)
        return self.decoder(self.embed(tokens.ids, places), places, state, real, memory)

    def standing(self, tokens: Tokens, start: int) -> Places:
        """Positions from ``start`` on; behind padding on the left, and in each new segment, they begin at 0."""
        ids, keep, segment, field = tokens
        T = ids.shape[1]
        if self.max_length is not None and start + T > self.max_length:
            raise ValueError(f"the model knows {self.max_length} positions, {start + T} needed: shorten the text")
        pos = torch.arange(start, start + T, device=ids.device)[None]
        if segment is not None:
            fresh = torch.ones_like(segment, dtype=torch.bool)
            fresh[:, 1:] = segment[:, 1:] != segment[:, :-1]
            pos = pos - torch.where(fresh, pos, 0).cummax(dim=1).values
        elif keep is not None and start == 0:
            pos = (keep.cumsum(dim=1) - 1).clamp(min=0)
        return Places(pos, keep, segment, field)


def _as_tokens(given: Tensor | Tokens) -> Tokens:
    """Ids alone are padded on the right, with PAD."""
    if isinstance(given, Tokens):
        return given
    keep = given != PAD
    if keep.device.type == "cpu" and bool(keep.all()):  # elsewhere the answer would cost a wait for the device
        return Tokens(given)
    return Tokens(given, keep)


class TransformerState(DecodingState):
    rows: int = 0
    """Rows of the last step."""

    def __init__(self, tower: TowerState, memory: ProjectedMemory | None):
        self.tower, self.memory, self.beams = tower, memory, 1

    @property
    def length(self) -> int:
        return self.tower.length

    @property
    def nbytes(self) -> int:
        return self.tower.nbytes + (self.memory.nbytes if self.memory else 0)

    def expand(self, beams: int) -> None:
        assert self.beams == 1, "already expanded"
        self.beams = beams  # the source is stored once for all rows of a sentence; see Attention.read
        if self.tower.places is not None:
            rows = torch.arange(self.rows, device=self.tower.places.pos.device)
            self.tower.reorder(rows.repeat_interleave(beams))

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        self.tower.reorder(rows)

    def select(self, sentences: Int[Tensor, " N"]) -> None:
        steps = torch.arange(self.beams, device=sentences.device)
        self.tower.reorder((sentences[:, None] * self.beams + steps).flatten())
        if self.memory is not None:
            self.memory.select(sentences)
