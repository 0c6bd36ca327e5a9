"""Blocks of convolutional models: a convolution, its nonlinearity and a residual connection.

A decoder's block may attend to the source between the two: what it reads is added to the convolution's output.

B batch, T newest tokens, C channels of a block, D channels before it.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.convolution.attention import MultiStepAttention, SourceView
from dragoman.model.convolution.layers import AlignedRows, Convolution, RecentInputs
from dragoman.model.convolution.weights import Weights, fill
from dragoman.model.dropout import Dropout, DropoutRate
from dragoman.model.norm import LayerNorm, Norm

# ---- configurations -------------------------------------------------------------------------------


class ConvolutionBlockConfig(ABC):
    """Base of the blocks' configurations."""

    kernel: int
    """Number of tokens that each output is computed from."""
    dilation: int
    """Distance between two of them."""

    def channels_after(self, width: int) -> int:
        """Return the number of channels of the block's output, given those of its input."""
        return width

    @abstractmethod
    def build(self, width: int, weights: Weights, *, causal: bool) -> "ConvolutionBlock":
        """Build the block for inputs of ``width`` channels.

        Raises:
            ConfigError: sizes that do not fit; the message opens with the field.
        """

    def check(self, *, causal: bool) -> None:
        """Check that the convolution can be computed.

        Raises:
            ConfigError: a kernel without a middle where one is needed, or a dilation with nothing to spread.
        """
        if not causal and self.kernel % 2 == 0:
            raise ConfigError(
                f"kernel: {self.kernel} tokens have no middle one, which an encoder's convolution needs: choose an odd "
                "number"
            )
        if self.kernel == 1 and self.dilation > 1:
            raise ConfigError(
                f"dilation: {self.dilation}, but a kernel of 1 token has no second one at that distance: use a kernel "
                "of 2 or more, or dilation 1"
            )


@config
class GatedConvolution(ConvolutionBlockConfig):
    """Gated linear unit over a convolution: y = scale (a * sigmoid(b) + x), where (a, b) = convolution(x) (Dauphin et
    al., arXiv:1612.08083; Gehring et al., arXiv:1705.03122, section 3.2)."""

    kernel: PositiveInt = 3
    """Number of tokens that each output is computed from."""
    channels: PositiveInt | None = None
    """Channels of the output; None for as many as the input has. Where they differ, x is projected in the sum."""
    dilation: PositiveInt = 1
    """Distance between two tokens of a convolution."""
    scale: PositiveFloat = math.sqrt(0.5)
    """Factor on the sum; sqrt(0.5) keeps its variance, 1 leaves it as it is."""
    dropout: DropoutRate = 0.0
    """Dropout on the input of the convolution."""

    def channels_after(self, width: int) -> int:
        return self.channels or width

    def build(self, width: int, weights: Weights, *, causal: bool) -> "ConvolutionBlock":
        self.check(causal=causal)
        return GatedConvolutionBlock(self, width, weights, causal)


@config
class TanhConvolution(ConvolutionBlockConfig):
    """Convolution inside a tanh: y = tanh(convolution(x) + x) (Gehring et al., arXiv:1611.02344, section 3.2)."""

    kernel: PositiveInt = 3
    """Number of tokens that each output is computed from."""
    channels: PositiveInt | None = None
    """Channels of the output; None for as many as the input has. Where they differ, x is projected in the sum."""
    dilation: PositiveInt = 1
    """Distance between two tokens of a convolution."""
    dropout: DropoutRate = 0.0
    """Dropout on the input of the convolution."""

    def channels_after(self, width: int) -> int:
        return self.channels or width

    def build(self, width: int, weights: Weights, *, causal: bool) -> "ConvolutionBlock":
        self.check(causal=causal)
        return TanhConvolutionBlock(self, width, weights, causal)


@config
class DilatedResidual(ConvolutionBlockConfig):
    """Residual block of ByteNet: a dilated convolution between two linear layers, each after a norm and a ReLU
    (Kalchbrenner et al., arXiv:1610.10099, figure 3, left)."""

    kernel: PositiveInt = 3
    """Number of tokens that each output is computed from."""
    dilation: PositiveInt = 1
    """Distance between two of them; ByteNet doubles it from block to block up to 16 and begins again."""
    inner: PositiveInt | None = None
    """Channels of the convolution d; None for half of the block's, as published."""
    norm: Norm = LayerNorm()
    """Norm before each ReLU."""
    dropout: DropoutRate = 0.0
    """Dropout on what is added to the residual stream."""

    def build(self, width: int, weights: Weights, *, causal: bool) -> "ConvolutionBlock":
        self.check(causal=causal)
        if self.inner is None and width % 2:
            raise ConfigError(f"inner: half of an odd width, {width}: set the channels of the convolution")
        return DilatedResidualBlock(self, width, weights, causal)


AnyConvolutionBlock = Annotated[GatedConvolution | TanhConvolution | DilatedResidual, OneOf()]

# ---- layers ---------------------------------------------------------------------------------------


class ConvolutionBlock(nn.Module, ABC):
    """Block with its weights. It owns no state: the newest inputs of its convolution are passed in."""

    convolution: Convolution
    cross: MultiStepAttention
    """Attention to the source; missing where the block has none."""

    def forward(
        self, x: Float[Tensor, "B T D"], layout: AlignedRows, state: RecentInputs, view: SourceView | None = None
    ) -> Float[Tensor, "B T C"]:
        """Compute the convolution, read the source where there is one to read, and add the input.

        Args:
            x: vectors of the newest tokens.
            layout: which of them are padding, and which are of one text.
            state: the convolution's inputs before them, to which theirs are added.
            view: the encoded source.
        """
        branch = self.branch(x, layout, state)
        if view is not None and hasattr(self, "cross"):
            branch = self.cross(branch, view)
        return self.merge(x, branch)

    @abstractmethod
    def branch(self, x: Float[Tensor, "B T D"], layout: AlignedRows, state: RecentInputs) -> Float[Tensor, "B T C"]:
        """Return what is added to the residual stream."""

    @abstractmethod
    def merge(self, x: Float[Tensor, "B T D"], branch: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Return the block's output, from its input and the branch."""


class _Convolved(ConvolutionBlock):
    """Block whose convolution reads the residual stream, projected in the sum where its width changes."""

    def __init__(self, cfg: GatedConvolution | TanhConvolution, width: int, weights: Weights):
        super().__init__()
        self.dropout, C = Dropout(cfg.dropout), cfg.channels_after(width)
        self.residual: nn.Module = nn.Identity()
        if width != C:
            self.residual = weights.build(width, C)
            fill(self.residual, gain=1.0)


class GatedConvolutionBlock(_Convolved):
    """See ``GatedConvolution``."""

    def __init__(self, cfg: GatedConvolution, width: int, weights: Weights, causal: bool):
        super().__init__(cfg, width, weights)
        self.scale = cfg.scale
        self.convolution = Convolution(
            width,
            2 * cfg.channels_after(width),
            weights,
            kernel=cfg.kernel,
            dilation=cfg.dilation,
            causal=causal,
            gain=4.0,
            retained=1 - cfg.dropout,
        )

    def branch(self, x: Float[Tensor, "B T D"], layout: AlignedRows, state: RecentInputs) -> Float[Tensor, "B T C"]:
        return F.glu(self.convolution(self.dropout(x), layout, state), dim=-1)

    def merge(self, x: Float[Tensor, "B T D"], branch: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        return (branch + self.residual(x)) * self.scale


class TanhConvolutionBlock(_Convolved):
    """See ``TanhConvolution``."""

    def __init__(self, cfg: TanhConvolution, width: int, weights: Weights, causal: bool):
        super().__init__(cfg, width, weights)
        self.convolution = Convolution(
            width,
            cfg.channels_after(width),
            weights,
            kernel=cfg.kernel,
            dilation=cfg.dilation,
            causal=causal,
            gain=1.0,
            retained=1 - cfg.dropout,
        )

    def branch(self, x: Float[Tensor, "B T D"], layout: AlignedRows, state: RecentInputs) -> Float[Tensor, "B T C"]:
        return self.convolution(self.dropout(x), layout, state)

    def merge(self, x: Float[Tensor, "B T D"], branch: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        return torch.tanh(branch + self.residual(x))


class DilatedResidualBlock(ConvolutionBlock):
    """See ``DilatedResidual``."""

    def __init__(self, cfg: DilatedResidual, width: int, weights: Weights, causal: bool):
        super().__init__()
        d, self.dropout = cfg.inner or width // 2, Dropout(cfg.dropout)
        self.down_norm, self.norm, self.out_norm = cfg.norm.build(width), cfg.norm.build(d), cfg.norm.build(d)
        self.down, self.out = weights.build(width, d), weights.build(d, width)
        self.convolution = Convolution(d, d, weights, kernel=cfg.kernel, dilation=cfg.dilation, causal=causal, gain=2.0)
        fill(self.down, gain=2.0)
        fill(self.out, gain=2.0)

    def branch(self, x: Float[Tensor, "B T D"], layout: AlignedRows, state: RecentInputs) -> Float[Tensor, "B T D"]:
        y = self.down(self.down_norm(x).relu())
        y = self.convolution(self.norm(y).relu(), layout, state)
        return self.out(self.out_norm(y).relu())

    def merge(self, x: Float[Tensor, "B T D"], branch: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return x + self.dropout(branch)
