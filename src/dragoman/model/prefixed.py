"""Language models that read embeddings before their text: the vectors of an image encoder stand as tokens before it.

An encoder reads the image, a projector brings its vectors to the width of the language model, and the language model
continues them with text: Frozen (Tsimpoukelli et al., arXiv:2106.13884), ClipCap (Mokady et al., arXiv:2111.09734),
LLaVA (Liu et al., arXiv:2304.08485). All text sees the whole prefix. With the visibility ``prefix``, so does the prefix
itself, as in PaliGemma (Beyer et al., arXiv:2407.07726); with ``causal``, each of its vectors sees those before it.

B batch, P prefix length, T text length, D width, V vocabulary.
"""

import dataclasses
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.config import at, config
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy, TowerState, stateless
from dragoman.model.encoder import Encoder, EncoderConfig
from dragoman.model.heads import NoHead
from dragoman.model.init import initialize
from dragoman.model.inputs import FrameInput, PatchInput, TokenInput, check_length
from dragoman.model.interface import DecodingState, SequenceConfig, SequenceModel
from dragoman.model.memory import TransformerState
from dragoman.model.positions.tokens import Frames, Positions, Tokens, positions_of
from dragoman.model.projector import LinearProjector, Projector
from dragoman.model.transformer import Transformer, TransformerConfig

PREFIX = 0
"""Field of the prefix, which the visibility ``prefix`` shows to all."""


@config
class PrefixedTransformerConfig(SequenceConfig):
    """Configuration of a language model that reads the vectors of an encoder before its text."""

    encoder: EncoderConfig
    """Encoder of images or frames, without a head."""
    projector: Projector = LinearProjector()
    """Layers between the encoder's vectors and the language model."""
    decoder: TransformerConfig
    """Language model: a Transformer without an encoder of its own."""
    frozen: tuple[Literal["encoder", "projector", "decoder"], ...] = ()
    """Parts that are not trained, such as those with weights of earlier runs (``task.encoder_from``,
    ``decoder_from``)."""

    @property
    def vocab(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.decoder.vocab

    @property
    def source_vocab(self) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return None

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.decoder.dim

    @property
    def source(self) -> PatchInput | FrameInput | TokenInput:
        """Input of the encoder."""
        return self.encoder.inputs

    @property
    def translates(self) -> bool:
        return True

    def sized(self, *, vocab: int, source_vocab: int | None = None) -> "PrefixedTransformerConfig":
        return dataclasses.replace(self, decoder=self.decoder.sized(vocab=vocab))

    def build(self) -> "PrefixedTransformer":
        with at("model"):
            return PrefixedTransformer(self)


class PrefixedTransformer(SequenceModel):
    """Encoder, projector and language model."""

    def __init__(self, cfg: PrefixedTransformerConfig):
        super().__init__()
        self.cfg = cfg
        _check(cfg)
        with at("encoder"):
            self.encoder = Encoder(cfg.encoder)
        with at("projector"):
            self.projector = cfg.projector.build(cfg.encoder.dim, cfg.decoder.dim)
        initialize(self.projector, cfg.decoder.init, cfg.decoder.dim)
        with at("decoder"):
            self.decoder = Transformer(cfg.decoder)
        self.logit_cap = cfg.decoder.logit_cap
        for name in cfg.frozen:
            getattr(self, name).requires_grad_(False)

    @property
    def output(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Output layer of the language model, which inference may have replaced by another class."""
        return self.decoder.output

    @property
    def max_length(self) -> int | None:
        """Longest text in tokens, besides the prefix; None for no limit."""
        longest = self.decoder.max_length
        return None if longest is None else longest - self.prefix_length

    @property
    def prefix_length(self) -> int:
        """Number of vectors of an image; 0 for frames, whose number varies."""
        inputs = self.cfg.encoder.inputs
        if not isinstance(inputs, PatchInput):
            return 0
        return (inputs.size[0] // inputs.patch) * (inputs.size[1] // inputs.patch) + inputs.class_token

    def hidden(self, target: Tensor | Tokens, source: Tensor | Tokens | Frames | None = None) -> Float[Tensor, "B T D"]:
        state = self.decoder.decoder.new_state(stateless)
        prefix, before = self.prefix(source)
        tokens = self.decoder.tokens(target)
        after = positions_of(tokens, _last(before))
        after = check_length(after, self.cfg.decoder.position.length)
        positions = before.followed_by(after)
        x = torch.cat([prefix, self.decoder.embed(tokens.ids, after)], dim=1)
        x = self.decoder.decoder(x, positions, state, positions.keep)
        return self.decoder.scaled(x[:, prefix.shape[1] :])

    def start(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = DEFAULT) -> DecodingState:
        state = self.decoder.decoder.new_state(policy)
        prefix, positions = self.prefix(source)
        self.decoder.decoder(prefix, positions, state, positions.keep)
        return PrefixedState(state, prefix.shape[1], len(prefix))

    def decode(self, tokens: Tensor | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        return self.decoder.decode(tokens, state)

    def prefix(self, source: Tensor | Tokens | Frames | None) -> tuple[Float[Tensor, "B P D"], Positions]:
        """Return the embeddings that stand before the text, and their positions: counted from 0, of field 0.

        Raises:
            ValueError: no source.
        """
        if source is None:
            raise ValueError("this model reads an image before its text: give one")
        x, keep = self.encoder.encode(source)
        x = self.projector(x)
        field = torch.full((1 if keep is None else len(x), x.shape[1]), PREFIX, device=x.device)
        positions = check_length(positions_of(Tokens(field, keep, field=field)), self.cfg.decoder.position.length)
        return self.decoder.embed.placed(x, positions), positions


class PrefixedState(TransformerState):
    """Decoding state that begins with a prefix, which does not count as tokens of the target."""

    def __init__(self, tower: TowerState, prefix: int, rows: int):
        super().__init__(tower, None)
        self.prefix, self.rows = prefix, rows

    @property
    def length(self) -> int:
        return self.tower.length - self.prefix

    def fork(self, tokens: int) -> None:
        """Return None: prompts after different images share nothing."""
        return None


def _last(positions: Positions) -> Positions:
    return positions.select_columns(slice(-1, None))._replace(field=None)


def _check(cfg: PrefixedTransformerConfig) -> None:
    if not isinstance(cfg.encoder.head, NoHead):
        raise ConfigError("encoder.head: the language model reads the vectors of all patches: leave the head out")
    if isinstance(cfg.encoder.inputs, TokenInput):
        raise ConfigError("encoder.inputs: must be patch_input or frame_input: text needs no encoder of its own here")
    if cfg.decoder.encoder is not None:
        raise ConfigError("decoder.encoder: the image stands before the text, nothing attends across: set it to null")
    if {"encoder", "projector", "decoder"} <= {*cfg.frozen}:
        raise ConfigError("frozen: nothing is left to train: leave a part out")
