"""Recurrent models that generate: a decoder of recurrent layers, alone or with an encoder. Read this file first.

B batch, T target length, S source length, D width, E width of the encoded source, V vocabulary.
"""

import dataclasses

from jaxtyping import Bool, Float
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dragoman.config import at, config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.caches.summary import Summary
from dragoman.model.dropout import DropoutRate
from dragoman.model.init import Init, Xavier, initialize, initialize_embedding
from dragoman.model.inputs import Embedding, TokenInput
from dragoman.model.interface import DecodingState, SequenceConfig, SequenceModel
from dragoman.model.linear import Linear
from dragoman.model.memory import Memory, ProjectedMemory
from dragoman.model.positions.tokens import PAD, Frames, Positions, Tokens, as_tokens, positions_of
from dragoman.model.recurrent.bridge import Bridge, NoBridge
from dragoman.model.recurrent.decoder import Source, build_decoder
from dragoman.model.recurrent.rows import TextRows
from dragoman.model.recurrent.source_attention import DecoderAttention, NoSourceAttention, source_mask
from dragoman.model.recurrent.stack import RecurrentStackConfig
from dragoman.model.recurrent.state import RecurrentState
from dragoman.model.vocabulary import Tying, suppress, tie_vocabulary


@config
class RecurrentConfig(SequenceConfig):
    """Configuration of a recurrent decoder, or of an encoder and a decoder."""

    vocab: PositiveInt | None = None
    """Target vocabulary V; None until the tokenizer sets it."""
    source_vocab: PositiveInt | None = None
    """Source vocabulary where it differs; None when both sides share one."""
    dim: PositiveInt
    """Width D of embeddings and of the vectors that the output layer reads."""
    encoder: RecurrentStackConfig | None = None
    """Encoder of a translator; None for a language model."""
    decoder: RecurrentStackConfig
    attention: DecoderAttention = NoSourceAttention()
    """Attention of the decoder to the source."""
    bridge: Bridge = NoBridge()
    """The decoder's first state, computed from the source."""
    tying: Tying = "all"
    """Weight tying, see ``vocabulary.Tying``: source embedding, target embedding and output projection share one matrix
    (``all``), only the two of the target (``target``), only the two embeddings (``inputs``), or ``none``."""
    scale_embedding: bool = False
    """Multiply embeddings by sqrt(D)."""
    output_bias: bool = False
    suppressed: tuple[NonNegativeInt, ...] = ()
    """Ids that may be read but are never generated."""
    logit_cap: PositiveFloat | None = None
    """Soft cap: logits become cap tanh(logits / cap)."""
    pad: NonNegativeInt | None = PAD
    """Id that marks padding where ids come without a mask; None where every id may be a token."""
    dropout: DropoutRate = 0.0
    """Dropout on the embeddings."""
    init: Init = Xavier()
    """Initialization of embeddings and linear layers; recurrent layers have one of their own."""

    def tokens(self, vocab: int) -> TokenInput:
        """Return the configuration of the embedding, for either side."""
        return TokenInput(vocab=vocab, scale=self.scale_embedding, pad=self.pad, dropout=self.dropout)

    @property
    def translates(self) -> bool:
        return self.encoder is not None

    def sized(self, *, vocab: int, source_vocab: int | None = None) -> "RecurrentConfig":
        """Return a copy with the sizes that only the data give."""
        return dataclasses.replace(self, vocab=vocab, source_vocab=source_vocab)

    def build(self) -> "RecurrentModel":
        """Build the model with initial weights.

        Raises:
            ConfigError: parts that do not fit one another; the message names the path.
        """
        with at("model"):
            return RecurrentModel(self)


class RecurrentModel(SequenceModel):
    """Recurrent language model, or encoder-decoder."""

    source_embed: Embedding
    """Embedding of the source; missing where there is no encoder."""

    def __init__(self, cfg: RecurrentConfig):
        super().__init__()
        if cfg.vocab is None:
            raise ConfigError("vocab: must be given before the model is built; training sets it from the tokenizer")
        self.cfg = cfg
        _check_parts(cfg)
        self.embed = Embedding(cfg.tokens(cfg.vocab), cfg.vocab, cfg.dim)
        self.output = Linear(cfg.dim, cfg.vocab, bias=cfg.output_bias)
        if cfg.encoder:
            source_vocab = cfg.source_vocab or cfg.vocab
            self.source_embed = Embedding(cfg.tokens(source_vocab), source_vocab, cfg.dim)
            with at("encoder"):
                self.encoder = cfg.encoder.build(cfg.dim)
        memory = self.encoder.outputs if cfg.encoder else None
        self.decoder = build_decoder(cfg.decoder, cfg.dim, cfg.attention, memory)
        if cfg.encoder:
            with at("bridge"):
                self.bridge = cfg.bridge.build(self.encoder, cfg.decoder, self.decoder.hidden)
        initialize(self, cfg.init, cfg.dim)
        for table in (m for m in self.modules() if isinstance(m, nn.Embedding)):
            initialize_embedding(table.weight, cfg.init, cfg.dim)
        self.tie()
        suppress(self.output, cfg.suppressed)
        self.logit_cap = cfg.logit_cap
        self.attends = self.keeps_keys = not isinstance(cfg.attention, NoSourceAttention)

    def tie(self) -> None:
        """Share the matrices that ``tying`` names; see ``tie_vocabulary``."""
        tie_vocabulary(self.output, self.embed, self.source_embed if self.cfg.encoder else None, self.cfg.tying)

    @property
    def max_length(self) -> None:
        return None

    def hidden(self, target: Tensor | Tokens, source: Tensor | Tokens | Frames | None = None) -> Float[Tensor, "B T D"]:
        first, memory = self.encode(source)
        tokens = target if isinstance(target, Tokens) else Tokens(target)  # padding on the right is future
        if memory is not None and tokens.segment is not None:
            raise ValueError("several targets in a row have no source of their own: give one target in each row")
        state = self.decoder.empty(len(tokens.ids)) if first is None else first
        rows = TextRows.of(tokens.ids, tokens.keep, tokens.segment)
        arguments = (self.embed(tokens.ids, positions_of(tokens)), state, self.source_of(memory), rows)
        if self.decoder.recompute and self.training:
            return checkpoint(self.decoder.read, *arguments, use_reentrant=False, exact=False)[0]
        return self.decoder.read(*arguments, exact=False)[0]

    def source_of(self, memory: Memory | None) -> Source | None:
        """Return the encoded source as the decoder's attention reads it; None where nothing attends to it."""
        if memory is None or not self.attends:
            return None
        kv = self.decoder.cross.key_value(memory.x)
        return Source(kv, source_mask(memory.positions, kv.k.dtype))

    def start(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = DEFAULT) -> DecodingState:
        first, memory = self.encode(source)
        if memory is None or not self.attends:
            return RecurrentState(first, None)
        return RecurrentState(first, ProjectedMemory(memory, [self.decoder.cross], policy))

    def decode(self, tokens: Tensor | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        assert isinstance(state, RecurrentState)
        if not isinstance(tokens, Tokens):
            tokens = Tokens(tokens) if tokens.shape[1] == 1 else as_tokens(tokens, self.cfg.pad, wait=True)
        assert tokens.segment is None, "a batch that is decoded has one text in each row"
        source, empty = state.source, self.decoder.empty(tokens.ids.shape[0]) if state.summary.value is None else None

        def read(
            before: Summary, x: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"] | None
        ) -> tuple[Tensor, Summary]:
            rows = None if keep is None else TextRows.of(keep.long(), keep, None)
            return self.decoder.read(x, before, source, rows)

        x = self.embed(tokens.ids, Positions(tokens.ids))
        state.tokens += tokens.ids.shape[1]
        return self.logits(state.summary.read(read, x, tokens.keep, empty=empty))

    def encode(self, source: Tensor | Tokens | Frames | None) -> tuple[Summary | None, Memory | None]:
        """Encode the source; return the decoder's first state and the source vectors, None where there is no encoder.

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
            return None, None
        x, positions = self.source_embed.read(source)
        x, states = self.encoder(x, positions, self.bridge.needs_states)
        if positions.keep is not None:  # a source of nothing but padding attends to zeros, not to another row
            x = x.masked_fill(~positions.keep[..., None], 0)
        return self.bridge(x, positions, states, self.decoder.empty(len(x))), Memory(x, positions)


def _check_parts(cfg: RecurrentConfig) -> None:
    """Check that attention and bridge have an encoder to read, and that the decoder reads it in one of the two ways."""
    attends, bridged = not isinstance(cfg.attention, NoSourceAttention), not isinstance(cfg.bridge, NoBridge)
    for name, part, given in (("attention", cfg.attention, attends), ("bridge", cfg.bridge, bridged)):
        if given and cfg.encoder is None:
            kind = kind_of(type(part))
            raise ConfigError(f"{name}: {kind}, and there is no encoder to read: give one or leave this out")
    if cfg.encoder is not None and not (attends or bridged):
        raise ConfigError("attention: the decoder would not see the source: choose an attention, or a bridge")
