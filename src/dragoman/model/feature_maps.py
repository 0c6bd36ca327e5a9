"""Feature maps phi of linear attention, whose weights are phi(q).phi(k) in the place of exp(q.k / sqrt(C)).

All features are positive, so that weights are, too.

B batch, H heads, T tokens, C channels of one head, M features of one head.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.model.exact import overrides
from dragoman.model.positions.effect import PositionEffect


class Features(NamedTuple):
    """Features of the newest tokens."""

    q: Float[Tensor, "B H T M"]
    k: Float[Tensor, "B H T M"]
    """Features of the keys, each divided by exp(``log_size``)."""
    log_size: Float[Tensor, "B H T"] | None = None
    """None where the features are not divided by anything."""
    rotated_q: Float[Tensor, "B H T M"] | None = None
    """Features for the numerator, with positions; None for the same ones."""
    rotated_k: Float[Tensor, "B H T M"] | None = None


class FeatureMap(nn.Module, ABC):
    """Map from queries and keys to their features."""

    @abstractmethod
    def forward(
        self, q: Float[Tensor, "B H T C"], k: Float[Tensor, "B H T C"], position_effect: PositionEffect
    ) -> Features: ...


# ---- elu + 1 ----------------------------------------------------------------------------------------


@config
class EluFeatures:
    """elu(x) + 1, channel by channel (Katharopoulos et al., arXiv:2006.16236, equation 7). Rotary positions rotate the
    features in the numerator only (Su et al., arXiv:2104.09864, equation 19)."""

    def build(self, channels: int) -> "EluMap":
        return EluMap()


class EluMap(FeatureMap):
    """elu(x) + 1, as many features as channels."""

    def forward(self, q: Tensor, k: Tensor, position_effect: PositionEffect) -> Features:
        q, k = F.elu(q) + 1, F.elu(k) + 1
        if not overrides(position_effect, PositionEffect, "rotate"):
            return Features(q, k)
        return Features(q, k, None, position_effect.rotate(q), position_effect.rotate(k))


# ---- FAVOR+ -----------------------------------------------------------------------------------------


@config
class FavorFeatures:
    """Positive orthogonal random features, FAVOR+ (Choromanski et al., arXiv:2009.14794): an unbiased estimate of the
    weights of softmax attention. Rotary positions rotate queries and keys before, as in attention."""

    features: PositiveInt | None = None
    """Number of features M of each head; None for the least multiple of C that is at least C ln C (theorem 4)."""
    redraw: bool = False
    """Draw other features for each batch of training, as dropout draws its masks, so that the model does not adapt to
    one draw. False: those drawn when the model is built. Outside training these are used always, and a checkpoint holds
    them."""

    def build(self, channels: int) -> "FavorMap":
        return FavorMap(self, channels)


class FavorMap(FeatureMap):
    """phi(x) = exp(w.x / C^(1/4) - |x|^2 / (2 sqrt(C))) / sqrt(M) for each row w of ``projection`` (lemma 1)."""

    projection: Float[Tensor, "M C"]

    def __init__(self, cfg: FavorFeatures, channels: int):
        super().__init__()
        self.redraw = cfg.redraw
        features = cfg.features or channels * max(1, math.ceil(math.log(channels)))
        self.register_buffer("projection", draw_orthogonal(torch.empty(features, channels)))

    def forward(self, q: Tensor, k: Tensor, position_effect: PositionEffect) -> Features:
        projection = draw_orthogonal(self.projection) if self.redraw and self.training else self.projection
        log_q, log_k = (
            project(position_effect.rotate(q), projection),
            log_features(position_effect.rotate(k), projection),
        )
        # what all features of a query have in common divides numerator and denominator
        largest, log_size = log_q.detach().amax(-1, keepdim=True), log_k.detach().amax(-1)
        return Features((log_q - largest).exp(), (log_k - log_size[..., None]).exp(), log_size)


def project(x: Float[Tensor, "*B C"], projection: Float[Tensor, "M C"]) -> Float[Tensor, "*B M"]:
    """Return w.x / C^(1/4) for each row w of ``projection``."""
    return (x * x.shape[-1] ** -0.25) @ projection.to(x.dtype).mT


def log_features(x: Float[Tensor, "*B C"], projection: Float[Tensor, "M C"]) -> Float[Tensor, "*B M"]:
    """Return log phi(x), for which the expectation of phi(q).phi(k) is exp(q.k / sqrt(C))."""
    M, C = projection.shape
    return project(x, projection) - 0.5 * (x.square().sum(-1, keepdim=True) * C**-0.5 + math.log(M))


def draw_orthogonal(like: Float[Tensor, "M C"]) -> Float[Tensor, "M C"]:
    """Draw normal vectors, of which each block of C is orthogonal (section 3.2), in the form of ``like``."""
    M, C = like.shape
    normal = torch.randn(-(-M // C), C, C, device=like.device)
    directions, triangle = torch.linalg.qr(normal)
    # the decomposition chooses signs, by which directions would not be uniform, nor the estimate unbiased
    directions = directions * triangle.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    lengths = torch.randn(M, C, device=like.device).norm(dim=1, keepdim=True)
    return (directions.mT.flatten(0, 1)[:M] * lengths).to(like.dtype)


AnyFeatures = Annotated[EluFeatures | FavorFeatures, OneOf()]
