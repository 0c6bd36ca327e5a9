"""Attention of convolutional decoders to the encoded source: dot products, once for each layer that attends.

B rows, T target tokens, S source tokens, N sentences, C channels of a block, E width of the embeddings.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dragoman.model.attention import explicit_is_faster, masked_softmax
from dragoman.model.caches.storage import KV
from dragoman.model.convolution.weights import Weights, fill
from dragoman.model.exact import is_plain
from dragoman.model.masks.visibility import AttentionMask
from dragoman.model.ops.elementwise import cast_for_products

HALVED = math.sqrt(0.5)
"""Factor that gives the sum of two independent terms the variance of one."""


class SourceView(NamedTuple):
    """Encoded source as the layers of a decoder read it, all of them the same."""

    target: Float[Tensor, "B T E"]
    """Embeddings of the target tokens read last."""
    encoded: KV
    """Keys and values of the N sentences, (N, 1, S, E) each."""
    mask: AttentionMask


class MultiStepAttention(nn.Module):
    """Attention of one decoder layer (Gehring et al., arXiv:1705.03122, section 3.3, as their code computes it).

    With h the layer's gated convolution, g the embedding of the previous target token, z and v keys and values:

        d = sqrt(0.5) (W_d h + b_d + g);   a = softmax(d z);   c = sum a v;   h <- sqrt(0.5) (W_c c + b_c + h)
    """

    def __init__(self, channels: int, width: int, weights: Weights):
        super().__init__()
        self.q, self.out = weights.build(channels, width), weights.build(width, channels)
        # for forward hooks: receive d z and a, (N, 1, T, S) each, only while one is registered
        self.scores, self.weights = nn.Identity(), nn.Identity()
        fill(self.q, gain=1.0)
        fill(self.out, gain=1.0)

    def forward(self, h: Float[Tensor, "B T C"], view: SourceView) -> Float[Tensor, "B T C"]:
        read = self.read(cast_for_products((self.q(h) + view.target) * HALVED), view)
        return (self.out(read) + h) * HALVED

    def read(self, d: Float[Tensor, "B T E"], view: SourceView) -> Float[Tensor, "B T E"]:
        """Return the weighted sums of values. The beams of a sentence read its keys together, once."""
        (B, T, E), (k, v) = d.shape, view.encoded
        q = d.reshape(len(k), 1, B // len(k) * T, E)
        observed = not (is_plain(self.scores, nn.Identity) and is_plain(self.weights, nn.Identity))
        if observed or explicit_is_faster(q, k, rate=0.0):
            weights = self.weights(masked_softmax(self.scores(q @ k.transpose(-2, -1)), view.mask))
            return (weights.to(v.dtype) @ v).view(B, T, E)
        return F.scaled_dot_product_attention(q, k, v, view.mask.allowed, scale=1.0).view(B, T, E)


class ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by ``factor``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return upstream * ctx.factor, None
