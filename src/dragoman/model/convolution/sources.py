"""Encoders of convolutional models, and how a decoder reads what they return.

B batch, S source length, E width of the embeddings.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from dragoman.config import OneOf, at, config
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy
from dragoman.model.convolution.attention import HALVED, ScaledGradient
from dragoman.model.convolution.layers import AlignedRows
from dragoman.model.convolution.memory import SharedMemory, UnfoldedMemory
from dragoman.model.convolution.stack import ConvolutionStack, ConvolutionTower
from dragoman.model.positions.tokens import Positions

# ---- configurations -------------------------------------------------------------------------------


class SourceReadingConfig(ABC):
    """Base of the encoders' configurations."""

    def attending(self, depth: int) -> tuple[int, ...]:
        """Return the decoder blocks, of ``depth``, that attend to the source.

        Raises:
            ConfigError: a block that the decoder does not have; the message opens with the field.
        """
        return ()

    @abstractmethod
    def build(self, width: int, attending: int) -> "SourceReader":
        """Build the encoder for embeddings of ``width``, which ``attending`` blocks of the decoder attend to."""


class _Attended(SourceReadingConfig):
    attend_from: tuple[int, ...]

    def attending(self, depth: int) -> tuple[int, ...]:
        if beyond := [i for i in self.attend_from if i >= depth]:
            raise ConfigError(f"attend_from: block {beyond[0]}, and the decoder's are 0 to {depth - 1}")
        return tuple(sorted(set(self.attend_from))) or tuple(range(depth))


@config
class MultiStepSource(_Attended):
    """Encoder of ConvS2S: one stack, which each block of the decoder attends to (Gehring et al., arXiv:1705.03122).

    Keys are the stack's output z, values z + e, where e are the embeddings. Sums of two terms are multiplied by
    sqrt(0.5), and values by sqrt(m) for a source of m tokens, which makes up for the mean over them (section 3.4). The
    gradient of z is divided by twice the number of attending blocks.
    """

    stack: ConvolutionStack
    attend_from: tuple[NonNegativeInt, ...] = ()
    """Decoder blocks that attend, counted from 0; none named: all of them."""

    def build(self, width: int, attending: int) -> "MultiStepReader":
        return MultiStepReader(self, width, attending)


@config
class TwoStackSource(_Attended):
    """Encoder of two stacks: keys from the first, values from the second (Gehring et al., arXiv:1611.02344, section
    3.2, where they are CNN-a and CNN-c)."""

    keys: ConvolutionStack
    values: ConvolutionStack
    attend_from: tuple[NonNegativeInt, ...] = ()
    """Decoder blocks that attend, counted from 0; none named: all of them."""

    def build(self, width: int, attending: int) -> "TwoStackReader":
        return TwoStackReader(self, width)


@config
class UnfoldedSource(SourceReadingConfig):
    """Encoder of ByteNet, on which the decoder is stacked: target token i is computed from column i of the source's
    representation (Kalchbrenner et al., arXiv:1610.10099, section 3.2).

    A source of n tokens is padded with zeros to ratio n + offset columns, an upper bound of the target's length. A
    target that is longer all the same reads zeros from there on. The columns are added to the target's embeddings; the
    paper does not say how the two meet.
    """

    stack: ConvolutionStack
    ratio: Annotated[float, Field(ge=1)] = 1.2
    """Columns for each source token, to two decimal places."""
    offset: NonNegativeInt = 0
    """Columns beyond those."""

    def build(self, width: int, attending: int) -> "UnfoldedReader":
        return UnfoldedReader(self, width)


SourceReading = Annotated[MultiStepSource | TwoStackSource | UnfoldedSource, OneOf()]

# ---- modules --------------------------------------------------------------------------------------


class SourceReader(nn.Module, ABC):
    """Encoder with its weights."""

    @abstractmethod
    def encode(
        self, x: Float[Tensor, "B S E"], positions: Positions, policy: KVPolicy
    ) -> SharedMemory | UnfoldedMemory:
        """Encode embeddings ``x`` of sources; keys and values are stored as ``policy`` says."""


class MultiStepReader(SourceReader):
    """See ``MultiStepSource``."""

    def __init__(self, cfg: MultiStepSource, width: int, attending: int):
        super().__init__()
        with at("stack"):
            self.stack = ConvolutionTower(cfg.stack, width, width, causal=False)
        self.gradient = 1 / (2 * attending)

    def encode(self, x: Float[Tensor, "B S E"], positions: Positions, policy: KVPolicy) -> SharedMemory:
        z = self.stack.read(x, positions)
        if torch.is_grad_enabled():
            z = ScaledGradient.apply(z, self.gradient)
        values = (z + x) * HALVED * _lengths(x, positions).sqrt()
        return SharedMemory(z, values, positions, policy)


class TwoStackReader(SourceReader):
    """See ``TwoStackSource``."""

    def __init__(self, cfg: TwoStackSource, width: int):
        super().__init__()
        with at("keys"):
            self.keys = ConvolutionTower(cfg.keys, width, width, causal=False)
        with at("values"):
            self.values = ConvolutionTower(cfg.values, width, width, causal=False)

    def encode(self, x: Float[Tensor, "B S E"], positions: Positions, policy: KVPolicy) -> SharedMemory:
        return SharedMemory(self.keys.read(x, positions), self.values.read(x, positions), positions, policy)


class UnfoldedReader(SourceReader):
    """See ``UnfoldedSource``."""

    def __init__(self, cfg: UnfoldedSource, width: int):
        super().__init__()
        with at("stack"):
            self.stack = ConvolutionTower(cfg.stack, width, width, causal=False)
        self.percent, self.offset = round(100 * cfg.ratio), cfg.offset

    def encode(self, x: Float[Tensor, "B S E"], positions: Positions, policy: KVPolicy) -> UnfoldedMemory:
        if positions.segment is not None:
            raise ValueError("sources packed into one row cannot be unfolded: give each a row of its own")
        layout = AlignedRows.of(positions, (), x.dtype)
        x = layout.moved(x)
        S, longest = x.shape[1], self.unfolded(x.shape[1])
        x = F.pad(x if layout.real is None else x * layout.real, (0, 0, 0, longest - S))
        index = torch.arange(longest, device=x.device)[None]
        keep = None if layout.lengths is None else index < self.unfolded(layout.lengths)[:, None]
        columns = self.stack.read(x, Positions(index, keep))
        return UnfoldedMemory(columns if keep is None else columns * keep[..., None].to(columns.dtype))

    def unfolded(self, length: Any) -> Any:
        """Return the number of columns for a source of this length, an int or a tensor."""
        return (length * self.percent + 99) // 100 + self.offset


def _lengths(x: Float[Tensor, "B S E"], positions: Positions) -> Float[Tensor, "#B #S 1"]:
    """Return the number of tokens of each text, at each of its tokens."""
    keep, segment = positions.keep, positions.segment
    if segment is not None:
        same = segment[:, :, None] == segment[:, None, :]
        return (same if keep is None else same & keep[:, None]).sum(dim=2)[..., None].to(x.dtype)
    if keep is None:
        return x.new_full((1, 1, 1), x.shape[1])
    return keep.sum(dim=1)[:, None, None].to(x.dtype)
