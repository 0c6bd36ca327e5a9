"""Input layers: token ids, patches of an image, or float frames, turned into vectors.

B batch, T length, D width, E width of a factorized embedding, C channels.
"""

import itertools
import math
from abc import ABC, abstractmethod
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError, DataError
from dragoman.model.dropout import Dropout, DropoutRate
from dragoman.model.init import Init, initialize, initialize_embedding
from dragoman.model.linear import Linear
from dragoman.model.mlp import ACTIVATIONS, Activation
from dragoman.model.norm import NoNorm, Norm
from dragoman.model.positions.grid import GridPosition, LearnedGrid
from dragoman.model.positions.position import AbsolutePosition, NoEmbedding
from dragoman.model.positions.tokens import PAD, Frames, Positions, Tokens, as_tokens, positions_of
from dragoman.model.preprocessing import ImagePreprocessing

# ---- configurations --------------------------------------------------------------------------------


@config
class FixedLength:
    """Filling of texts to one length, with a token that is attended like the others (SigLIP, arXiv:2303.15343)."""

    length: PositiveInt
    """Tokens of every text L; a longer one is an error."""
    token: NonNegativeInt = 2
    """Token that texts are filled with; by default the one that ends a text."""

    def fill(self, tokens: Tokens) -> Tokens:
        """Return texts of L tokens without padding: each begins where the row does, wherever its padding stood.

        Raises:
            DataError: a text of more tokens.
        """
        ids, keep, L = tokens.ids, tokens.keep, self.length
        if keep is None:
            keep = torch.ones_like(ids, dtype=torch.bool)
        if ids.shape[1] > L and bool((keep.sum(dim=1) > L).any()):
            raise DataError(f"model.inputs.filled: a text of more than {L} tokens: shorten it")
        place = (keep.cumsum(dim=1) - 1).masked_fill(~keep, L)  # padding goes to a column that is then dropped
        filled = torch.full_like(ids[:, :1], self.token).repeat(1, L + 1)
        return Tokens(filled.scatter(1, place, ids)[:, :L])


@config
class TokenInput:
    """Token ids: a learned vector for each entry of a vocabulary."""

    vocab: PositiveInt | None = None
    """Size of the vocabulary; None until the tokenizer sets it."""
    position: AbsolutePosition = NoEmbedding()
    types: NonNegativeInt = 0
    """Number of token types, each with a learned vector, such as BERT's first and second sentence; 0 for none. The type
    of a token is its field, 0 without one."""
    scale: bool = False
    """Multiply the vectors of ids by sqrt(D) (Vaswani et al. 2017, section 3.4)."""
    norm: Norm = NoNorm()
    """Norm on the sum of all these."""
    width: PositiveInt | None = None
    """Width E of all these vectors, which a linear layer then projects to D: a factorized embedding (ALBERT,
    arXiv:1909.11942, section 3.1). None for D itself, without a layer."""
    pad: NonNegativeInt | None = PAD
    """Id that marks padding where ids come without a mask; None where every id may be a token."""
    filled: FixedLength | None = None
    """Filling of all texts to one length; None for texts of their own lengths."""
    dropout: DropoutRate = 0.0

    def build(self, dim: int) -> "InputLayer":
        if self.filled and self.types:
            raise ConfigError("filled: what texts are filled with has no token type: set types to 0")
        if self.vocab is None:
            raise ConfigError("vocab: must be given before the model is built; training sets it from the tokenizer")
        return Embedding(self, self.vocab, dim)


@config
class PatchInput:
    """Images divided into square patches, each projected to a vector (Dosovitskiy et al., arXiv:2010.11929)."""

    size: tuple[PositiveInt, PositiveInt]
    """Height and width in pixels."""
    patch: PositiveInt
    """Side of a patch in pixels."""
    has_grid = True

    channels: PositiveInt = 3
    class_token: bool = True
    """Put a learned vector before the patches, to represent the whole image."""
    bias: bool = True
    position: GridPosition = LearnedGrid()
    norm: Norm = NoNorm()
    """Norm on the sum of patches and positions."""
    preprocessing: ImagePreprocessing | None = None
    """Preparation of images that are given as files or whole numbers; None: of this size, scaled to -1 to 1."""
    dropout: DropoutRate = 0.0

    def build(self, dim: int) -> "InputLayer":
        if any(side % self.patch for side in self.size):
            raise ConfigError(f"patch: squares of {self.patch} pixels do not fill an image of {_times(self.size)}")
        for name in ("mean", "std") if self.preprocessing else ():
            if (count := len(getattr(self.preprocessing, name))) not in (1, self.channels):
                wanted = f"one number, or one for each of the {self.channels} channels"
                raise ConfigError(f"preprocessing.{name}: must hold {wanted}; it holds {count}")
        return PatchEmbedding(self, dim)


@config
class FrameConvolution:
    """Convolution over neighbouring frames and an activation; with a stride it shortens their sequence (Whisper,
    Radford et al., arXiv:2212.04356, section 2.2)."""

    kernel: PositiveInt = 3
    """Frames that are read together, an odd number; beyond both ends they are zeros."""
    stride: PositiveInt = 1
    """Frames from one result to the next."""
    activation: Activation = "gelu"


@config
class FrameInput:
    """Float vectors, each projected to width D: spectra of a sound, measurements, another model's hidden vectors."""

    channels: PositiveInt
    """Size of a frame."""
    convolutions: tuple[FrameConvolution, ...] = ()
    """Convolutions in place of the projection: the first from frames to width D, the others from D to D."""
    bias: bool = True
    position: AbsolutePosition = NoEmbedding()
    norm: Norm = NoNorm()
    """Norm on the sum of frames and positions."""
    dropout: DropoutRate = 0.0

    @property
    def stride(self) -> int:
        """Frames from one vector to the next."""
        return math.prod(one.stride for one in self.convolutions)

    @property
    def longest(self) -> int | None:
        """Largest number of frames that the model has positions for; None for no limit."""
        return None if self.position.length is None else self.position.length * self.stride

    def positions(self, frames: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """Return the number of vectors that these numbers of frames become. A last step that is not full counts."""
        return -(-frames // self.stride)

    def build(self, dim: int) -> "InputLayer":
        for i, part in enumerate(self.convolutions):
            if part.kernel % 2 == 0:
                raise ConfigError(f"convolutions.{i}.kernel: {part.kernel} has no middle frame: choose an odd number")
        return FrameEmbedding(self, dim)


Input = Annotated[TokenInput | PatchInput | FrameInput, OneOf()]

# ---- layers ----------------------------------------------------------------------------------------


class InputLayer(nn.Module, ABC):
    """Base of the input layers: turn a model's input into vectors and their positions."""

    length: int | None = None
    """Longest text in tokens; None for no limit."""

    @abstractmethod
    def read(self, given: Tensor | Tokens | Frames) -> tuple[Float[Tensor, "B T D"], Positions]:
        """Return the vectors and their positions.

        Raises:
            DataError: an input of another kind or size than the model reads.
        """

    def cast(self, values: Tensor) -> Tensor:
        """Return float values in the data type of the weights, which inference may have changed."""
        kept = itertools.chain(self.parameters(), self.buffers())
        return values.to(next((tensor.dtype for tensor in kept if tensor.is_floating_point()), values.dtype))


class Embedding(InputLayer):
    """Sum of token, position and type embeddings, with norm and dropout, projected where it is factorized."""

    def __init__(self, cfg: TokenInput, vocab: int, dim: int):
        super().__init__()
        width = cfg.width or dim
        self.pad, self.length, self.scale = cfg.pad, cfg.position.length, width**0.5 if cfg.scale else 1.0
        self.tokens = nn.Embedding(vocab, width)
        self.position = cfg.position.build(width)
        self.types = TypeEmbedding(cfg.types, width) if cfg.types else nn.Identity()
        self.norm, self.dropout = cfg.norm.build(width), Dropout(cfg.dropout)
        self.project = Linear(width, dim) if cfg.width else nn.Identity()
        self.filled = cfg.filled
        if cfg.filled:
            self.length = min(filter(None, (cfg.position.length, cfg.filled.length)))

    def read(self, given: Tensor | Tokens | Frames) -> tuple[Float[Tensor, "B T D"], Positions]:
        if isinstance(given, Frames) or (isinstance(given, Tensor) and given.dim() != 2):
            raise DataError("this model reads token ids (batch, length), not frames or images")
        tokens = as_tokens(given, self.pad)
        if self.filled:
            if tokens.segment is not None:
                raise DataError("model.inputs.filled: texts that are filled to one length cannot be packed into rows")
            tokens = self.filled.fill(tokens)
        positions = check_length(positions_of(tokens), self.length)
        return self(tokens.ids, positions), positions

    def forward(self, ids: Int[Tensor, "B T"], positions: Positions) -> Float[Tensor, "B T D"]:
        return self.placed(self.tokens(ids) * self.scale, positions)

    def placed(self, x: Float[Tensor, "B T E"], positions: Positions) -> Float[Tensor, "B T D"]:
        """Return vectors that stand for tokens, with positions and types added, and norm and dropout applied.

        E is D, or the smaller ``width`` of a factorized embedding.
        """
        x = self.position(x, positions.pos)
        if isinstance(self.types, TypeEmbedding):
            x = self.types(x, positions.field)
        return self.project(self.dropout(self.norm(x)))


class TypeEmbedding(nn.Embedding):
    """Adds a learned vector for each token type."""

    def forward(self, x: Float[Tensor, "B T D"], field: Int[Tensor, "B T"] | None) -> Float[Tensor, "B T D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if field is None or self.num_embeddings == 1:  # RoBERTa has one type, for both of its sentences
            return x + self.weight[0]
        return x + super().forward(field)


class PatchEmbedding(InputLayer):
    """Projection of patches, row by row, after the class token where there is one."""

    def __init__(self, cfg: PatchInput, dim: int):
        super().__init__()
        self.cfg, self.before = cfg, int(cfg.class_token)
        self.rows, self.columns = (side // cfg.patch for side in cfg.size)
        self.project = Linear(cfg.channels * cfg.patch**2, dim, bias=cfg.bias)
        if cfg.class_token:
            self.class_token = nn.Parameter(torch.zeros(dim))
        self.position = cfg.position.build(dim, (self.rows, self.columns), self.before)
        self.norm, self.dropout = cfg.norm.build(dim), Dropout(cfg.dropout)

    def read(self, given: Tensor | Tokens | Frames) -> tuple[Float[Tensor, "B T D"], Positions]:
        expected = (self.cfg.channels, *self.cfg.size)
        if not isinstance(given, Tensor) or given.shape[1:] != expected:
            got = f"images of {_times(given.shape[1:])}" if isinstance(given, Tensor) else type(given).__name__.lower()
            raise DataError(f"this model reads images of {_times(expected)} (channels, height, width), got {got}")
        positions = self.positions(given.device)
        return self(given, positions), positions

    def positions(self, device: torch.device) -> Positions:
        """Return the positions of all patches, with their rows and columns; the class token is at row and column 0."""
        index = torch.arange(self.rows * self.columns, device=device)
        row, column = (
            torch.cat([index.new_zeros(self.before), i])[None] for i in (index // self.columns, index % self.columns)
        )
        return Positions(torch.arange(row.shape[1], device=device)[None], row=row, column=column)

    def forward(self, images: Float[Tensor, "B C height width"], positions: Positions) -> Float[Tensor, "B T D"]:
        x = self.project(self.patches(self.cast(images)))
        if self.before:
            x = torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        return self.dropout(self.norm(self.position(x, positions)))

    def patches(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B N CPP"]:
        """Return each patch's pixels, channel by channel and row by row: the order of a convolution's weights."""
        P = self.cfg.patch
        squares = images.unfold(2, P, P).unfold(3, P, P)  # (B, C, rows, columns, P, P)
        return squares.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


class FrameEmbedding(InputLayer):
    """Projection of frames, or convolutions over them, plus positions."""

    def __init__(self, cfg: FrameInput, dim: int):
        super().__init__()
        self.cfg, self.length = cfg, cfg.position.length
        self.project = nn.Identity() if cfg.convolutions else Linear(cfg.channels, dim, bias=cfg.bias)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim if i else cfg.channels, dim, one.kernel, one.stride, one.kernel // 2, bias=cfg.bias)
            for i, one in enumerate(cfg.convolutions)
        )
        self.position = cfg.position.build(dim)
        self.norm, self.dropout = cfg.norm.build(dim), Dropout(cfg.dropout)

    def read(self, given: Tensor | Tokens | Frames) -> tuple[Float[Tensor, "B T D"], Positions]:
        values, keep = given if isinstance(given, Frames) else (given, None)
        if not isinstance(values, Tensor) or values.dim() != 3 or values.shape[2] != self.cfg.channels:
            raise DataError(f"this model reads frames (batch, length, {self.cfg.channels}), got something else")
        if self.convolutions:
            values, keep = self.convolved(self.cast(values), keep)
        positions = check_length(positions_of(Tokens(values[..., 0], keep)), self.length)
        return self(values if keep is None else values.masked_fill(~keep[..., None], 0), positions), positions

    def convolved(
        self, values: Float[Tensor, "B T C"], keep: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B U D"], Bool[Tensor, "B U"] | None]:
        """Return the results of the convolutions and their mask, for which frames begin where their rows do.

        Padding is zeros to each convolution, as is what lies beyond the end, so that it changes nothing.
        """
        if keep is not None:
            order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
            values, keep = values.gather(1, order[..., None].expand_as(values)), keep.gather(1, order)
        x = values.transpose(1, 2)
        for convolution, cfg in zip(self.convolutions, self.cfg.convolutions, strict=True):
            x = x if keep is None else x.masked_fill(~keep[:, None], 0)
            x = ACTIVATIONS[cfg.activation](convolution(x))
            keep = None if keep is None else keep[:, :: cfg.stride]
        return x.transpose(1, 2), keep

    def forward(self, frames: Float[Tensor, "B T C"], positions: Positions) -> Float[Tensor, "B T D"]:
        return self.dropout(self.norm(self.position(self.project(self.cast(frames)), positions.pos)))


def initialize_input_layer(reader: InputLayer, init: Init, dim: int) -> None:
    initialize(reader, init, dim)
    for part in reader.modules():
        if isinstance(part, nn.Embedding):
            initialize_embedding(part.weight, init, dim)
    if isinstance(reader, PatchEmbedding) and reader.cfg.class_token:
        initialize_embedding(reader.class_token, init, dim)


def check_length(positions: Positions, length: int | None, seen: int = 0) -> Positions:
    """Return ``positions``, which follow ``seen`` tokens, if the text is not too long.

    Raises:
        DataError: a text longer than ``length``.
    """
    if length is None or seen + positions.pos.shape[1] <= length:  # with padding, but without waiting for the device
        return positions
    if (needed := int(positions.pos.max()) + 1) > length:
        raise DataError(
            f"model.position: a text of {needed} tokens, and learned positions for {length}: "
            "shorten the text, or train with a larger length or with positions that are not learned"
        )
    return positions


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
