"""Encoder models, which read a whole input and generate nothing: BERT, ViT, sentence encoders.

B batch, T length, D width.
"""

import dataclasses
from typing import Annotated

from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor

from dragoman.config import OneOf, at, config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.convolution.stack import ConvolutionStack
from dragoman.model.heads import (
    ClassificationHead,
    Head,
    MaskedLanguageHead,
    MaskedLanguageLayer,
    NoHead,
    SpansHead,
    TaggingHead,
)
from dragoman.model.init import Init, Xavier, initialize
from dragoman.model.inputs import Embedding, Input, TokenInput, initialize_input_layer
from dragoman.model.interface import EncoderModel
from dragoman.model.positions.tokens import Frames, Tokens
from dragoman.model.recurrent.stack import RecurrentStackConfig
from dragoman.model.tower import SharedTower, TowerConfig

EncoderTower = Annotated[TowerConfig | SharedTower | RecurrentStackConfig | ConvolutionStack, OneOf(usual="tower")]
"""Layers between the inputs and the head of an encoder model."""


@config
class EncoderConfig:
    """Configuration of an encoder model."""

    inputs: Input
    """Input layer: ids, images, or float frames."""
    dim: PositiveInt
    """Width D."""
    tower: EncoderTower
    head: Head = NoHead()
    """Task head on the hidden vectors."""
    init: Init = Xavier()

    @property
    def blocks(self) -> TowerConfig:
        """The tower as blocks, for file formats that know no other one.

        Raises:
            ConfigError: the tower has other layers.
        """
        if not isinstance(self.tower, TowerConfig):
            raise ConfigError(f"tower: {kind_of(type(self.tower))}, where only blocks are known")
        return self.tower

    def sized(self, *, vocab: int | None = None, classes: int | None = None) -> "EncoderConfig":
        """Return a copy with the sizes that only the data give; None leaves one open."""
        inputs, head = self.inputs, self.head
        if vocab is not None and isinstance(inputs, TokenInput):
            inputs = dataclasses.replace(inputs, vocab=vocab)
        if classes is not None and isinstance(head, ClassificationHead | TaggingHead):
            head = dataclasses.replace(head, classes=classes)
        return dataclasses.replace(self, inputs=inputs, head=head)

    def build(self) -> "Encoder":
        """Build the model with initial weights.

        Raises:
            ConfigError: sizes that do not fit one another; the message names the path.
        """
        with at("model"):
            return Encoder(self)


class Encoder(EncoderModel):
    """Input layer, tower and head."""

    def __init__(self, cfg: EncoderConfig):
        super().__init__()
        self.cfg = cfg
        _check_filled(cfg)
        with at("inputs"):
            self.inputs = cfg.inputs.build(cfg.dim)
        with at("tower"):
            self.tower = cfg.tower.build_tower(cfg.dim, cfg.inputs, cfg.init)
        with at("head"):
            self.head = cfg.head.build(cfg.dim, self.inputs)
        initialize_input_layer(self.inputs, cfg.init, cfg.dim)
        initialize(self.head, cfg.init, cfg.dim)
        self.tie()

    def tie(self) -> None:
        """Share the matrix of a tied masked-language head with the embeddings."""
        if isinstance(self.head, MaskedLanguageLayer) and isinstance(self.inputs, Embedding) and self.head.tied:
            self.head.output.weight = self.inputs.tokens.weight

    @property
    def max_length(self) -> int | None:
        return min(filter(None, (self.inputs.length, self.cfg.tower.longest)), default=None)

    def encode(self, inputs: Tensor | Tokens | Frames) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"] | None]:
        x, positions = self.inputs.read(inputs)
        return self.tower.read(x, positions), positions.keep


def _check_filled(cfg: EncoderConfig) -> None:
    filled = isinstance(cfg.inputs, TokenInput) and cfg.inputs.filled
    if filled and isinstance(cfg.head, MaskedLanguageHead | TaggingHead | SpansHead):
        raise ConfigError("inputs.filled: this head says something of each token of a text: leave the filling out")
