"""A gated convolution over a few neighbouring tokens: the mixer of most layers of LFM2 (Liquid AI, arXiv:2511.23404).

    B, C, x = in(tokens);  y = out(C * convolution(B * x))

Each channel is a weighted sum over ``kernel`` successive tokens of one text; the two gates B and C are computed from
the tokens themselves. Its cost for each token does not grow with the text, and its cache holds kernel - 1 tokens.

B batch, T newest tokens, K cached and newest tokens, D width.
"""

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy, VisibleKeys
from dragoman.model.depthwise import ConvolutionState, DepthwiseConvolution, Neighbours
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal, Full, Visibility
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions


@config
class ShortConvolution(MixerConfig):
    """Gated convolution over neighbouring tokens (LFM2); for hybrids with attention, which sees further."""

    kernel: PositiveInt = 3
    """Number of tokens in each sum."""
    bias: bool = False
    """Bias on the convolution and on both projections."""
    causal: bool = True
    """Sum over a token and those before it; false: as many on either side, for encoders."""

    @property
    def visibility(self) -> Visibility:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Causal(window=self.kernel) if self.causal else Full()

    def build(self, dim: int) -> "ShortConvolutionLayer":
        if not self.causal and self.kernel % 2 == 0:
            raise ConfigError(f"kernel: {self.kernel} tokens have no middle one: choose an odd number, or causal: true")
        return ShortConvolutionLayer(self, dim)

    def check_decoder(self) -> None:
        if not self.causal:
            raise ConfigError("causal: a decoder must not see what it is to predict: only true fits here")


class ShortConvolutionLayer(MixerLayer):
    """Gated depthwise convolution with its projections."""

    def __init__(self, cfg: ShortConvolution, dim: int):
        super().__init__()
        self.cfg, self.visibility = cfg, cfg.visibility
        self.inputs, self.out = Linear(dim, 3 * dim, bias=cfg.bias), Linear(dim, dim, bias=cfg.bias)
        self.convolution = DepthwiseConvolution(dim, cfg.kernel, bias=cfg.bias, causal=cfg.causal)

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> Neighbours:
        return Neighbours.of(new, seen)

    def forward(
        self, x: Float[Tensor, "B T D"], context: Neighbours, state: ConvolutionState
    ) -> Float[Tensor, "B T D"]:
        before, after, value = self.inputs(x).chunk(3, dim=-1)
        return self.out(after * self.convolution(state.extend(before * value, context.retained), context))

    def new_state(self, policy: KVPolicy) -> ConvolutionState:
        return ConvolutionState(remembers=policy.remembers)
