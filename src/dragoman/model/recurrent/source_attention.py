"""Attention of a recurrent decoder to its source: Bahdanau's before the step, Luong's after it, GNMT's, and none.

B rows, T steps, N sentences (B is a multiple of N: the beams of a search share a source), S source length, Q queries of
a sentence, H channels of a decoder state, E width of the encoded source, A channels of a score.
"""

from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.attention import additive_mask, softmax
from dragoman.model.caches.storage import KV
from dragoman.model.exact import is_plain
from dragoman.model.linear import Linear
from dragoman.model.positions.tokens import Positions
from dragoman.model.scorer import Dot

# ---- scores -----------------------------------------------------------------------------------------


@config
class General:
    """Score h W s with a learned matrix (Luong et al., arXiv:1508.04025, "general")."""


@config
class Concat:
    """Score v . tanh(W [h; s]) (Luong et al., arXiv:1508.04025, "concat"). Memory grows with T x S x A."""

    size: PositiveInt | None = None
    """Channels A; None for those of the decoder's state."""


LuongScore = Annotated[Dot | General | Concat, OneOf()]
"""Score of a decoder state h and a source vector s; ``dot`` is h . s, of equal widths."""

# ---- where attention stands -------------------------------------------------------------------------


@config
class Bahdanau:
    """Additive attention before each step: the lowest layer's last state is the query, and its context is read with the
    next token; the output is computed from state, context and token (Bahdanau et al., arXiv:1409.0473)."""

    size: PositiveInt | None = None
    """Channels A of the score's hidden layer; None for those of the decoder's state."""


@config
class GnmtAttention:
    """Bahdanau's attention, from the lowest layer, whose context all layers read; the top layer is the output (GNMT, Wu
    et al., arXiv:1609.08144, section 3)."""

    size: PositiveInt | None = None
    """Channels A of the score's hidden layer; None for those of the decoder's state."""


@config
class Luong:
    """Attention after each step, from the top layer's state; the output is tanh(W [context; state]) (Luong et al.,
    arXiv:1508.04025)."""

    score: LuongScore = General()
    input_feeding: bool = True
    """Read the last step's output with each token; without it all steps are computed at once in training."""


@config
class NoSourceAttention:
    """No attention: all of the source is in the decoder's first state (Sutskever et al., arXiv:1409.3215)."""


DecoderAttention = Annotated[Bahdanau | GnmtAttention | Luong | NoSourceAttention, OneOf()]

# ---- the layer --------------------------------------------------------------------------------------


class SourceAttention(nn.Module):
    """Weighted sums of source vectors. Subclasses give the scores."""

    k: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.q: nn.Module = nn.Identity()
        self.weights = nn.Identity()  # for forward hooks: receives (N, 1, Q, S), only while one is registered

    def key_value(self, memory: Float[Tensor, "N S E"]) -> KV:
        """Return the source's keys (N, 1, S, A), projected once, and its vectors (N, 1, S, E)."""
        return KV(self.k(memory)[:, None], memory[:, None])

    def scores(self, q: Float[Tensor, "N Q A"], k: Float[Tensor, "N S A"]) -> Float[Tensor, "N Q S"]:
        """Return the score of each query with each source vector."""
        return torch.bmm(q, k.transpose(1, 2))

    def forward(
        self, query: Float[Tensor, "B T A"], source: KV, mask: Float[Tensor, "N 1 S"] | None
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "N Q S"]]:
        """Return each query's context and weights.

        Args:
            query: states of the decoder, projected by ``q``.
            source: keys and vectors of each sentence.
            mask: added to the scores; None where nothing is padded.
        """
        (B, T, _), k, v = query.shape, source.k.squeeze(1), source.v.squeeze(1)
        scores = self.scores(query.reshape(len(k), B // len(k) * T, -1), k)
        weights = softmax(scores if mask is None else scores + mask)
        return torch.bmm(weights.to(v.dtype), v).view(B, T, -1), weights

    @property
    def observed(self) -> bool:
        """True while a hook listens to ``weights``."""
        return not is_plain(self.weights, nn.Identity)


class DotAttention(SourceAttention):
    """Scores h . s, or h W s."""

    def __init__(self, k: nn.Module):
        super().__init__()
        self.k = k


class AdditiveAttention(SourceAttention):
    """Scores v . tanh(W h + U s + b)."""

    def __init__(self, hidden: int, memory: int, size: int | None):
        super().__init__()
        size = size or hidden
        self.q, self.k = Linear(hidden, size, bias=False), Linear(memory, size)
        self.energy = nn.Parameter(torch.randn(size) * size**-0.5)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return _AdditiveScore.apply(q, k, self.energy)


class _AdditiveScore(torch.autograd.Function):
    """Scores with the derivative written out: autograd would keep and read one more tensor of (N, Q, S, A)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, energy: Tensor) -> Float[Tensor, "N Q S"]:
        met = (q[:, :, None] + k[:, None]).tanh_()  # (N, Q, S, A)
        ctx.save_for_backward(met, energy)
        ctx.dtypes = q.dtype, k.dtype
        return met @ energy.to(met.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        met, energy = ctx.saved_tensors
        by_energy = upstream.flatten().to(met.dtype) @ met.flatten(0, -2)
        slope = met.square().neg_().add_(1).mul_(energy.to(met.dtype)).mul_(upstream[..., None])
        by_k = slope.sum(1) if slope.shape[1] > 1 else slope[:, 0]
        return slope.sum(2).to(ctx.dtypes[0]), by_k.to(ctx.dtypes[1]), by_energy.to(energy.dtype)


def build_attention(
    cfg: Bahdanau | GnmtAttention | Luong | NoSourceAttention, hidden: int, memory: int
) -> SourceAttention:
    """Build the attention of states of ``hidden`` channels to source vectors of width ``memory``.

    Raises:
        ConfigError: a dot product of different widths; the message opens with the field.
    """
    score = cfg.score if isinstance(cfg, Luong) else cfg
    if isinstance(score, Dot):
        if hidden != memory:
            raise ConfigError(
                f"score: dot compares vectors of equal width, and the decoder's have {hidden} channels, the encoder's "
                f"{memory}: use general, or set hidden"
            )
        return DotAttention(nn.Identity())
    if isinstance(score, General):
        return DotAttention(Linear(memory, hidden, bias=False))
    assert not isinstance(score, NoSourceAttention | Luong)
    return AdditiveAttention(hidden, memory, score.size)


def source_mask(positions: Positions, dtype: torch.dtype) -> Float[Tensor, "N 1 S"] | None:
    """Return the term to add to scores; None where nothing is padded."""
    return None if positions.keep is None else additive_mask(positions.keep[:, None], dtype)
