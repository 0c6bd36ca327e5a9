"""The generating Transformer, 2017 to today: a decoder, alone or with an encoder. Read this file first.

B batch, T target length, S source length, D width, V vocabulary, N sentences, R rows.
"""

import dataclasses
from typing import Annotated, cast

from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, at, config
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy, TowerState, stateless
from dragoman.model.dropout import DropoutRate
from dragoman.model.init import Init, Xavier, initialize, initialize_embedding
from dragoman.model.inputs import (
    Embedding,
    FrameInput,
    InputLayer,
    PatchInput,
    TokenInput,
    check_length,
    initialize_input_layer,
)
from dragoman.model.interface import DecodingState, SequenceConfig, SequenceModel
from dragoman.model.linear import Linear
from dragoman.model.memory import Memory, ProjectedMemory, TransformerState
from dragoman.model.norm import Depths, NoNorm, Norm
from dragoman.model.positions.position import AbsolutePosition, NoEmbedding
from dragoman.model.positions.tokens import PAD, Frames, Positions, Tokens, as_tokens, positions_of
from dragoman.model.rereading import RereadingState
from dragoman.model.tower import BlockConfig, Tower, TowerConfig
from dragoman.model.vocabulary import Tying, suppress, tie_vocabulary

__all__ = ["BlockConfig", "Tower", "TowerConfig", "Transformer", "TransformerConfig"]


@config
class TransformerConfig(SequenceConfig):
    """Configuration of a decoder, or of an encoder and a decoder."""

    vocab: PositiveInt | None = None
    """Target vocabulary V; None until the tokenizer sets it."""
    source_vocab: PositiveInt | None = None
    """Source vocabulary where it differs; None when both sides share one."""
    dim: PositiveInt
    """Width D."""
    encoder: TowerConfig | None = None
    decoder: TowerConfig
    position: AbsolutePosition = NoEmbedding()
    scale_embedding: bool = False
    """Multiply embeddings by sqrt(D) (Vaswani et al. 2017, section 3.4)."""
    embedding_norm: Norm = NoNorm()
    tying: Tying = "all"
    """Weight tying: source embedding, target embedding and output projection share one matrix (``all``), only the two
    of the target (``target``), only the two embeddings (``inputs``), or ``none``."""
    output_bias: bool = False
    suppressed: tuple[NonNegativeInt, ...] = ()
    """Ids that may be read but are never generated: their logits are so low that their probability is 0."""
    scale_output: bool = False
    """Divide the input of the output projection by sqrt(D), as T5 does where that projection is tied."""
    logit_cap: PositiveFloat | None = None
    """Soft cap: logits become cap tanh(logits / cap), as in Gemma 2."""
    pad: NonNegativeInt | None = PAD
    """Id that marks padding where ids come without a mask; None where every id may be a token."""
    source: Annotated[PatchInput | FrameInput, OneOf()] | None = None
    """Input of the encoder where it is not text: images or frames. Text is embedded as the target is."""
    dropout: DropoutRate = 0.0
    """Dropout on the sum of embeddings and positions."""
    init: Init = Xavier()

    def tokens(self, vocab: int) -> TokenInput:
        """Return the configuration of the embedding, for either side."""
        return TokenInput(
            vocab=vocab,
            position=self.position,
            scale=self.scale_embedding,
            norm=self.embedding_norm,
            pad=self.pad,
            dropout=self.dropout,
        )

    @property
    def translates(self) -> bool:
        return self.encoder is not None

    def sized(self, *, vocab: int, source_vocab: int | None = None) -> "TransformerConfig":
        """Return a copy with the sizes that only the data give."""
        return dataclasses.replace(self, vocab=vocab, source_vocab=source_vocab)

    def build(self) -> "Transformer":
        """Build the model with initial weights.

        Raises:
            ConfigError: sizes that do not fit one another; the message names the path.
        """
        with at("model"):
            return Transformer(self)


class Transformer(SequenceModel):
    """Decoder-only or encoder-decoder Transformer."""

    source_embed: InputLayer
    """Input layer of the encoder; missing where there is none."""

    def __init__(self, cfg: TransformerConfig):
        super().__init__()
        if cfg.vocab is None:
            raise ConfigError("vocab: must be given before the model is built; training sets it from the tokenizer")
        self.cfg = cfg
        _check_cross(cfg)
        depths = Depths(cfg.encoder.depth if cfg.encoder else 0, cfg.decoder.depth)
        self.embed = Embedding(cfg.tokens(cfg.vocab), cfg.vocab, cfg.dim)
        self.output = Linear(cfg.dim, cfg.vocab, bias=cfg.output_bias)
        initialize(self.output, cfg.init, cfg.dim)
        if cfg.encoder:
            self.source_embed = _source_reader(cfg, cfg.source_vocab or cfg.vocab)
            with at("encoder"):
                cfg.encoder.check_grid(cfg.source)
                self.encoder = Tower(cfg.encoder, cfg.dim, depths, cfg.init, is_encoder=True)
        with at("decoder"):
            cfg.decoder.check_grid(None)
            self.decoder = Tower(cfg.decoder, cfg.dim, depths, cfg.init, is_encoder=False)
        for table in (m for m in self.modules() if isinstance(m, nn.Embedding)):
            initialize_embedding(table.weight, cfg.init, cfg.dim)
        self.tie()
        suppress(self.output, cfg.suppressed)
        self.logit_cap = cfg.logit_cap
        limits = (cfg.position.length, cfg.encoder and cfg.encoder.longest, cfg.decoder.longest)
        self.longest = min(filter(None, limits), default=None)
        self.limits = tuple(sorted({length for scheme in self.decoder.schemes for length in scheme.limits}))
        """Lengths in tokens beyond which positions change for all of a text."""
        self.sees_only_past = all(visibility.sees_only_past for _, visibility in self.decoder.kinds)

    def tie(self) -> None:
        """Share the matrices that ``tying`` names; see ``tie_vocabulary``."""
        source = self.source_embed if self.cfg.encoder else None
        tie_vocabulary(self.output, self.embed, source if isinstance(source, Embedding) else None, self.cfg.tying)

    @property
    def max_length(self) -> int | None:
        return self.longest

    def hidden(self, target: Tensor | Tokens, source: Tensor | Tokens | Frames | None = None) -> Float[Tensor, "B T D"]:
        memory, state = self.encode(source), self.decoder.new_state(stateless)
        tokens = self.tokens(target)
        positions = self.positions_after(tokens, state)
        real = positions.keep
        if self.sees_only_past and not self.limits and not isinstance(target, Tokens):
            # padding on the right needs no mask: it is future
            positions = positions_of(Tokens(tokens.ids))
        return self.scaled(self.decoder(self.embed(tokens.ids, positions), positions, state, real, memory))

    def scaled(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Apply ``scale_output``."""
        return x * self.cfg.dim**-0.5 if self.cfg.scale_output else x

    def start(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = DEFAULT) -> DecodingState:
        memory = self.encode(source)
        if memory is not None:
            memory = ProjectedMemory(memory, [block.cross for block in self.decoder.blocks], policy)
        if self.limits:
            return RereadingState(lambda: self.decoder.new_state(policy), memory, self.limits)
        return TransformerState(self.decoder.new_state(policy), memory)

    def decode(self, tokens: Tensor | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        assert isinstance(state, TransformerState)
        if not isinstance(tokens, Tokens):
            tokens = Tokens(tokens) if tokens.shape[1] == 1 else self.tokens(tokens, wait=True)
        new = tokens.ids.shape[1]
        if isinstance(state, RereadingState):
            tokens = state.tokens_to_read(tokens)
        state.rows = tokens.ids.shape[0]
        positions = self.positions_after(tokens, state.tower)
        memory = cast(ProjectedMemory | None, state.memory)
        x = self.decoder(self.embed(tokens.ids, positions), positions, state.tower, positions.keep, memory)
        return self.logits(self.scaled(x[:, -new:]))

    def encode(self, source: Tensor | Tokens | Frames | None) -> Memory | None:
        """Encode the source; return None where there is no encoder.

        Raises:
            ValueError: a source without an encoder, or an encoder without a source.
        """
        if (source is None) != (self.cfg.encoder is None):
            raise ValueError(
                "this model translates: it needs a source"
                if source is None
                else "this model has no encoder: it continues text, it does not translate a source"
            )
        if source is None:
            return None
        x, positions = self.source_embed.read(source)
        return Memory(self.encoder(x, positions, self.encoder.new_state(stateless), positions.keep), positions)

    def tokens(self, given: Tensor | Tokens, *, wait: bool = False) -> Tokens:
        """Attach the padding mask to ids that come alone; see ``as_tokens``."""
        return as_tokens(given, self.cfg.pad, wait=wait)

    def positions_after(self, tokens: Tokens, state: TowerState) -> Positions:
        """Return the positions of ``tokens``, which follow those in ``state``."""
        return check_length(positions_of(tokens, state.last), self.cfg.position.length, state.length)


def _source_reader(cfg: TransformerConfig, vocab: int) -> InputLayer:
    if cfg.source is None:
        return Embedding(cfg.tokens(vocab), vocab, cfg.dim)
    with at("source"):
        reader = cfg.source.build(cfg.dim)
    initialize_input_layer(reader, cfg.init, cfg.dim)
    return reader


def _check_cross(cfg: TransformerConfig) -> None:
    if cfg.encoder is None and cfg.source is not None:
        raise ConfigError("source: there is no encoder to read it; give one or leave this out")
    for i, part in enumerate(cfg.decoder.pattern):
        if cfg.encoder is not None and part.cross is None:
            raise ConfigError(f"decoder.pattern.{i}.cross: must be given, for the decoder to attend to the encoder")
        if cfg.encoder is None and part.cross is not None:
            raise ConfigError(
                f"decoder.pattern.{i}.cross: there is no encoder to attend to; give one or leave this out"
            )
    for i, part in enumerate(cfg.encoder.pattern if cfg.encoder else ()):
        if part.cross is not None:
            raise ConfigError(f"encoder.pattern.{i}.cross: only a decoder attends across")
