"""Position schemes: added to the embeddings, or acting inside attention. (rotary.py has the rotary ones.)

B batch, T length, D width, N wavelengths (D / 2), H heads, C channels of one head, Q/K query and key lengths; #B: B, or
1 for all rows.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.exact import overrides
from dragoman.model.positions.effect import PositionEffect, RelativeScheme
from dragoman.model.positions.rotary import Rotary, RotaryGrid
from dragoman.model.positions.tokens import Positions

# ---- absolute: x + embed(position) ----------------------------------------------------------------


@config
class Sinusoidal:
    """Sinusoidal positions: wavelengths from 2 pi to base * 2 pi, spaced geometrically (Vaswani et al. 2017, section
    3.5)."""

    base: PositiveFloat = 10_000.0
    """Base of the wavelengths."""
    layout: Literal["interleaved", "halves"] = "interleaved"
    """Order of channels: sine and cosine of one wavelength side by side as in the paper, or all sines first as in
    Marian."""

    length = None
    offset = 0

    def build(self, dim: int) -> nn.Module:
        return SinusoidalEmbedding(self, dim)

    def frequencies(self, index: Float[Tensor, " N"], dim: int) -> Float[Tensor, " N"]:
        """Return the angle by which each pair of channels turns from one position to the next."""
        return self.base ** (-2 * index / dim)


@config
class InclusiveSinusoidal:
    """Sinusoidal positions whose longest wavelength is base * 2 pi itself, and which count from ``offset``.

    Exponents go from 0 to 1, as in tensor2tensor, fairseq and M2M-100 (arXiv:2010.11125); those of the paper end just
    before 1.
    """

    base: PositiveFloat = 10_000.0
    """Base of the wavelengths."""
    layout: Literal["interleaved", "halves"] = "halves"
    """Order of channels, as in ``Sinusoidal``."""
    offset: NonNegativeInt = 0
    """Number of the first position: 2 in M2M-100."""

    length = None

    def build(self, dim: int) -> nn.Module:
        if dim < 4:
            raise ConfigError(f"position: two wavelengths need four channels, and the width is {dim}")
        return SinusoidalEmbedding(self, dim)

    def frequencies(self, index: Float[Tensor, " N"], dim: int) -> Float[Tensor, " N"]:
        """Return the angle by which each pair of channels turns from one position to the next."""
        return self.base ** (-index / (dim // 2 - 1))


@config
class Learned:
    """Learned positions: a vector for each position below ``length``."""

    length: PositiveInt
    """Number of positions, the longest text."""
    offset: NonNegativeInt = 0
    """Number of unused rows of the table before position 0: 2 in RoBERTa and BART."""

    def build(self, dim: int) -> nn.Module:
        return LearnedEmbedding(self.length, dim, self.offset)


@config
class NoEmbedding:
    """No added positions: they enter inside attention, or not at all."""

    length = None

    def build(self, dim: int) -> nn.Module:
        return NoPositionEmbedding()


AbsolutePosition = Annotated[Sinusoidal | InclusiveSinusoidal | Learned | NoEmbedding, OneOf()]


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of position * frequency, added to the embeddings."""

    def __init__(self, cfg: Sinusoidal | InclusiveSinusoidal, dim: int):
        super().__init__()
        if dim % 2:
            raise ConfigError(f"position: sinusoidal positions come in pairs of channels, and the width {dim} is odd")
        self.cfg, self.dim = cfg, dim

    def forward(self, x: Float[Tensor, "B T D"], pos: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        return x + self.lookup(pos, x.dtype)

    def lookup(self, pos: Int[Tensor, "B T"], dtype: torch.dtype) -> Float[Tensor, "B T D"]:
        """Return the embeddings; on CPUs, where sines are slow, compute each position of a batch once."""
        if torch.compiler.is_compiling() or pos.device.type != "cpu" or len(pos) == 1 or not pos.numel():
            return self.sinusoids(pos).to(dtype)
        first, last = (int(end) for end in pos.aminmax())
        if last - first >= pos.numel():
            return self.sinusoids(pos).to(dtype)
        return F.embedding(pos - first, self.sinusoids(torch.arange(first, last + 1)[None])[0].to(dtype))

    def sinusoids(self, pos: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return PE of the paper, in float64 to be exact even at position 10,000."""
        index = torch.arange(self.dim // 2, dtype=torch.float64, device=pos.device)
        angle = (pos + self.cfg.offset)[..., None] * self.cfg.frequencies(index, self.dim)
        return torch.stack([angle.sin(), angle.cos()], -1 if self.cfg.layout == "interleaved" else -2).flatten(-2)


class LearnedEmbedding(nn.Embedding):
    def __init__(self, length: int, dim: int, offset: int = 0):
        super().__init__(offset + length, dim)
        self.length, self.offset = length, offset

    def forward(self, x: Float[Tensor, "B T D"], pos: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x + super().forward(pos.clamp(0, self.length - 1) + self.offset)  # only padding can be outside


class NoPositionEmbedding(nn.Module):
    def forward(self, x: Float[Tensor, "B T D"], pos: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        return x


# ---- relative: rotate q and k, or add to the scores -----------------------------------------------


@config
class NoPosition:
    """No relative positions."""

    shared = True

    def build(self, heads: int, head_dim: int) -> RelativeScheme:
        return RelativeScheme()


@config
class Alibi:
    """ALiBi: adds -slope * distance to the scores, with a fixed slope per head (Press et al., arXiv:2108.12409)."""

    shared = True

    def build(self, heads: int, head_dim: int) -> RelativeScheme:
        return AlibiScheme(heads)


@config
class T5Bias:
    """Relative bias of T5: a learned bias for each head and bucket of distances (Raffel et al., arXiv:1910.10683)."""

    buckets: PositiveInt = 32
    """Number of buckets."""
    reach: PositiveInt = 128
    """Distance from which on all tokens share the last bucket."""
    bidirectional: bool
    """Use half of the buckets for later keys; causal attention would never use these."""
    shared: bool = True
    """Share one table among all layers of a tower, as in T5."""

    def build(self, heads: int, head_dim: int) -> RelativeScheme:
        if self.reach <= (exact := self.buckets // (4 if self.bidirectional else 2)) or not exact:
            raise ConfigError(f"position: {self.buckets} buckets hold distances up to {self.reach} one by one already")
        return T5BiasScheme(self, heads)


@config
class Shaw:
    """Relative positions of Shaw et al. (arXiv:1803.02155): learned vectors for clipped distances, added to keys and
    values."""

    reach: PositiveInt = 16
    """Largest distance: distances are clipped to -reach..reach."""
    on_values: bool = True
    """Add vectors to values too."""
    shared: bool = False
    """Share the vectors among all layers of a tower."""

    def build(self, heads: int, head_dim: int) -> RelativeScheme:
        return ShawScheme(self, head_dim)


RelativePosition = Annotated[NoPosition | Rotary | RotaryGrid | Alibi | T5Bias | Shaw, OneOf()]


def distances(q: Positions, k: Positions) -> Int[Tensor, "B Q K"]:
    """Return the distance back from each query to each key; negative for later keys."""
    return q.pos[:, :, None] - k.pos[:, None, :]


class BiasEffect(PositionEffect):
    """Bias for each head, query and key, added to the scores."""

    def __init__(self, table: Float[Tensor, "B H Q K"]):
        self.table = table

    def bias(self, q: Tensor, scale: float) -> Tensor:
        return self.table.to(q.dtype)


class AlibiScheme(RelativeScheme):
    """Biases of ALiBi."""

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads

    def slopes(self) -> list[float]:
        """Return 2^(-8/H), 2^(-16/H), ...; for H not a power of two, interleave those of the next power, as in the
        paper's code."""
        whole = 2 ** math.floor(math.log2(self.heads))
        first = [2.0 ** (-8.0 * i / whole) for i in range(1, whole + 1)]
        between = [2.0 ** (-4.0 * i / whole) for i in range(1, 2 * whole + 1, 2)]
        return first + between[: self.heads - whole]

    def effect(self, q: Positions, k: Positions, dtype: torch.dtype) -> PositionEffect:
        slope = torch.tensor(self.slopes(), dtype=dtype, device=q.pos.device)
        return BiasEffect(-slope[None, :, None, None] * distances(q, k).abs()[:, None])


class T5BiasScheme(RelativeScheme):
    """Biases of T5: short distances have a bucket each, longer ones share buckets that widen geometrically up to
    ``reach``."""

    def __init__(self, cfg: T5Bias, heads: int):
        super().__init__()
        self.cfg, self.table = cfg, nn.Embedding(cfg.buckets, heads)

    def effect(self, q: Positions, k: Positions, dtype: torch.dtype) -> PositionEffect:
        return BiasEffect(self.table(self.bucket(distances(q, k))).movedim(-1, 1))

    def bucket(self, back: Int[Tensor, "B Q K"]) -> Int[Tensor, "B Q K"]:
        buckets = self.cfg.buckets // 2 if self.cfg.bidirectional else self.cfg.buckets
        ahead = buckets * (back < 0) if self.cfg.bidirectional else 0
        near = back.abs() if self.cfg.bidirectional else back.clamp(min=0)
        exact = buckets // 2
        steps = torch.log(near.clamp(min=1).float() / exact) / math.log(self.cfg.reach / exact) * (buckets - exact)
        far = (exact + steps.long()).clamp(max=buckets - 1)
        return torch.where(near < exact, near, far) + ahead


class ShawScheme(RelativeScheme):
    """Tables of Shaw's vectors."""

    def __init__(self, cfg: Shaw, head_dim: int):
        super().__init__()
        self.cfg = cfg
        self.key_table = nn.Embedding(2 * cfg.reach + 1, head_dim)
        self.value_table = nn.Embedding(2 * cfg.reach + 1, head_dim) if cfg.on_values else None

    def effect(self, q: Positions, k: Positions, dtype: torch.dtype) -> PositionEffect:
        index = distances(q, k).clamp(-self.cfg.reach, self.cfg.reach) + self.cfg.reach
        return ShawEffect(index, self.key_table.weight, self.value_table and self.value_table.weight)


class ShawEffect(PositionEffect):
    """Shaw's terms: score = q . (k + a[distance]) / sqrt(C), output = sum of weights * (v + b[distance]) (equations 3
    and 4)."""

    def __init__(self, index: Int[Tensor, "B Q K"], key_table: Tensor, value_table: Tensor | None):
        self.index, self.key_table, self.value_table = index, key_table, value_table

    @property
    def fusable(self) -> bool:
        return self.value_table is None and not overrides(self, ShawEffect, "parts", "values")

    def bias(self, q: Float[Tensor, "B H Q C"], scale: float) -> Float[Tensor, "B H Q K"]:
        by_distance = scale * (q @ self.key_table.to(q.dtype).T)  # (B, H, Q, 2 reach + 1)
        return by_distance.gather(-1, self.index[:, None].expand(*q.shape[:2], -1, -1))

    def values(self, weights: Float[Tensor, "B H Q K"]) -> Float[Tensor, "B H Q C"] | None:
        if self.value_table is None:
            return None
        by_distance = weights.new_zeros(*weights.shape[:3], len(self.value_table))
        by_distance = by_distance.scatter_add(-1, self.index[:, None].expand_as(weights), weights)
        return by_distance @ self.value_table.to(weights.dtype)
