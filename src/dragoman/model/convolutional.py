"""Convolutional generating models: ConvS2S, ByteNet, the convolutional encoder of 2016, gated convolutional language
models. Read ``convolution/blocks.py`` and ``convolution/sources.py`` next.

A decoder keeps only the newest inputs of its convolutions: neither a step's cost nor the state grows with the text.

B batch, T target length, S source length, D width of the output, E width of the embeddings, V vocabulary.
"""

import dataclasses

from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import at, config
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy, TowerState, stateless
from dragoman.model.convolution.memory import SharedMemory, UnfoldedMemory
from dragoman.model.convolution.sources import SourceReading
from dragoman.model.convolution.stack import ConvolutionStack, ConvolutionTower
from dragoman.model.convolution.weights import fill
from dragoman.model.dropout import Dropout, DropoutRate
from dragoman.model.inputs import Embedding, TokenInput, check_length
from dragoman.model.interface import DecodingState, SequenceConfig, SequenceModel
from dragoman.model.linear import Linear
from dragoman.model.memory import TransformerState
from dragoman.model.positions.position import AbsolutePosition, NoEmbedding
from dragoman.model.positions.tokens import Frames, Positions, Tokens, as_tokens, positions_of
from dragoman.model.vocabulary import Tying, suppress, tie_vocabulary

EncodedSource = SharedMemory | UnfoldedMemory


@config
class ConvolutionalConfig(SequenceConfig):
    """Configuration of a convolutional decoder, or of an encoder and a decoder."""

    vocab: PositiveInt | None = None
    """Target vocabulary V; None until the tokenizer sets it."""
    source_vocab: PositiveInt | None = None
    """Source vocabulary where it differs; None when both sides share one."""
    dim: PositiveInt
    """Width D of the decoder's output."""
    embedding: PositiveInt | None = None
    """Width E of the embeddings on both sides; None for the output's."""
    encoder: SourceReading | None = None
    """Encoder, and how the decoder reads it; None for a language model."""
    decoder: ConvolutionStack
    position: AbsolutePosition = NoEmbedding()
    """Positions added to the embeddings."""
    scale_embedding: bool = False
    """Multiply embeddings by sqrt(E)."""
    embedding_std: PositiveFloat = 0.1
    """Standard deviation of initial embeddings (Gehring et al. 2017, section 3.5)."""
    tying: Tying = "none"
    """Weight tying: source embedding, target embedding and output projection share one matrix (``all``), only the two
    of the target (``target``), only the two embeddings (``inputs``), or ``none``."""
    output_bias: bool = True
    """Bias on the output projection. With suppressed ids there is one in any case."""
    suppressed: tuple[NonNegativeInt, ...] = ()
    """Ids that may be read but are never generated: their logits are so low that their probability is 0."""
    dropout: DropoutRate = 0.0
    """Dropout on the embeddings and on the decoder's output."""

    @property
    def translates(self) -> bool:
        return self.encoder is not None

    def sized(self, *, vocab: int, source_vocab: int | None = None) -> "ConvolutionalConfig":
        return dataclasses.replace(self, vocab=vocab, source_vocab=source_vocab)

    def build(self) -> "ConvolutionalModel":
        with at("model"):
            return ConvolutionalModel(self)


class ConvolutionalModel(SequenceModel):
    """Convolutional decoder, alone or with an encoder."""

    source_embed: Embedding
    """Input layer of the encoder; missing where there is none."""

    def __init__(self, cfg: ConvolutionalConfig):
        super().__init__()
        if cfg.vocab is None:
            raise ConfigError("vocab: must be given before the model is built; training sets it from the tokenizer")
        self.cfg, E = cfg, cfg.embedding or cfg.dim
        tokens = TokenInput(position=cfg.position, scale=cfg.scale_embedding, dropout=cfg.dropout)
        self.embed = Embedding(tokens, cfg.vocab, E)
        attending = ()
        if cfg.encoder:
            self.source_embed = Embedding(tokens, cfg.source_vocab or cfg.vocab, E)
            with at("encoder"):
                attending = cfg.encoder.attending(cfg.decoder.depth)
                self.encoder = cfg.encoder.build(E, len(attending))
        with at("decoder"):
            self.decoder = ConvolutionTower(cfg.decoder, E, cfg.dim, causal=True, attending=attending, attended=E)
        self.keeps_keys, self.dropout = bool(attending), Dropout(cfg.dropout)
        self.output = Linear(cfg.dim, cfg.vocab, bias=cfg.output_bias)
        fill(self.output, gain=1.0, retained=1 - cfg.dropout)
        for table in (m for m in self.modules() if isinstance(m, nn.Embedding)):
            nn.init.normal_(table.weight, std=cfg.embedding_std)
        self.tie()
        suppress(self.output, cfg.suppressed)

    def tie(self) -> None:
        """Share the matrices that ``tying`` names; see ``tie_vocabulary``."""
        tie_vocabulary(self.output, self.embed, self.source_embed if self.cfg.encoder else None, self.cfg.tying)

    @property
    def max_length(self) -> int | None:
        return self.cfg.position.length

    def hidden(self, target: Tensor | Tokens, source: Tensor | Tokens | Frames | None = None) -> Float[Tensor, "B T D"]:
        source_memory, state = self.encode(source, stateless), self.decoder.new_state(stateless)
        tokens = as_tokens(target)
        positions = self.positions_after(tokens, state)
        if not isinstance(target, Tokens):  # padding on the right needs no mask: it is future
            positions = positions_of(Tokens(tokens.ids))
        return self.read(tokens.ids, positions, state, source_memory)

    def start(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = DEFAULT) -> DecodingState:
        return TransformerState(self.decoder.new_state(policy), self.encode(source, policy))

    def decode(self, tokens: Tensor | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        assert isinstance(state, TransformerState)
        if not isinstance(tokens, Tokens):
            tokens = Tokens(tokens) if tokens.shape[1] == 1 else as_tokens(tokens, wait=True)
        state.rows = tokens.ids.shape[0]
        positions = self.positions_after(tokens, state.tower)
        return self.logits(self.read(tokens.ids, positions, state.tower, state.memory))

    def read(self, ids: Tensor, positions: Positions, state: TowerState, memory: object) -> Float[Tensor, "B T D"]:
        """Return the decoder's output for the newest tokens, which follow those in ``state``."""
        x = self.embed(ids, positions)
        if isinstance(memory, UnfoldedMemory):
            x = x + memory.at(positions, len(x))
        return self.dropout(
            self.decoder(x, positions, state, memory=memory if isinstance(memory, SharedMemory) else None)
        )

    def encode(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = stateless) -> EncodedSource | None:
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
        return None if source is None else self.encoder.encode(*self.source_embed.read(source), policy)

    def positions_after(self, tokens: Tokens, state: TowerState) -> Positions:
        """Return the positions of ``tokens``, which follow those in ``state``."""
        return check_length(positions_of(tokens, state.last), self.max_length, state.length)
