"""Rotary positions: turn each pair of channels by position * frequency, so that q.k depends on distance only.

B batch, T length, H heads, C channels of one head, R rotated channels (R <= C).
Su et al., arXiv:2104.09864; scaling for texts longer than those trained on: arXiv:2306.15595, arXiv:2309.00071.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.config import ConfigError, OneOf, config
from dragoman.model.relation import Relation, RelativeScheme
from dragoman.model.visibility import Places

# ---- how frequencies stretch -----------------------------------------------------------------------


def frequencies(theta: float, channels: int) -> Float[Tensor, " R/2"]:
    """theta^(-2i/R): one turn of pair i takes 2 pi / frequency tokens."""
    return theta ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)


@config
class NoScaling:
    @property
    def magnitude(self) -> float:
        return 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta, channels)


@config
class LinearScaling:
    """Position interpolation: every position divided by ``factor`` (Chen et al., arXiv:2306.15595)."""

    factor: float

    @property
    def magnitude(self) -> float:
        return 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta, channels) / self.factor


@config
class NtkScaling:
    """A larger base: the slowest pair is interpolated by ``factor``, the fastest hardly at all ("NTK-aware")."""

    factor: float

    @property
    def magnitude(self) -> float:
        return 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta * self.factor ** (channels / (channels - 2)), channels)


@config
class DynamicNtkScaling:
    """NTK-aware with a factor that grows with the text: 1 up to the ``trained`` length.

    The length that counts is each query's own (its position + 1), not the longest in the batch: so neither later tokens
    nor other rows change an answer, and decoding with a cache equals one forward. Keys are remembered unrotated.
    """

    trained: int
    """Tokens the model was trained on."""
    factor: float = 1.0

    @property
    def magnitude(self) -> float:
        return 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta, channels)

    def stretched(self, length: Int[Tensor, " B"], theta: float, channels: int) -> Float[Tensor, "B R/2"]:
        growth = (self.factor * length / self.trained - (self.factor - 1)).clamp(min=1.0).double()
        base = theta * growth ** (channels / (channels - 2))
        index = torch.arange(0, channels, 2, dtype=torch.float64, device=length.device)
        return base[:, None] ** (-index / channels)


@config
class Yarn:
    """Interpolate slow pairs, keep fast ones, ramp between; sharpen attention (Peng et al., arXiv:2309.00071)."""

    factor: float
    trained: int
    """Tokens the model was trained on."""
    fast: float = 32.0
    """Pairs that turn more often than this over ``trained`` tokens are kept."""
    slow: float = 1.0
    """Pairs that turn less often than this are interpolated."""

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied by (section 3.4)."""
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        def pair(turns: float) -> float:
            return channels * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = max(math.floor(pair(self.fast)), 0), min(math.ceil(pair(self.slow)), channels - 1)
        index = torch.arange(channels // 2, dtype=torch.float64)
        keep = 1 - ((index - low) / max(high - low, 0.001)).clamp(0, 1)
        freq = frequencies(theta, channels)
        return freq * keep + freq / self.factor * (1 - keep)


RotaryScaling = Annotated[NoScaling | LinearScaling | NtkScaling | DynamicNtkScaling | Yarn, OneOf()]

# ---- the choice and its layer ----------------------------------------------------------------------


@config
class Rotary:
    theta: float = 10_000.0
    """Wavelength base; larger reaches further."""
    scaling: RotaryScaling = NoScaling()
    fraction: float = 1.0
    """Share of each head's channels that turns; the rest carries no position."""
    pairs: Literal["halves", "neighbours"] = "halves"
    """Which channels form a pair: i and i + R/2 (LLaMA in Hugging Face layout), or 2i and 2i + 1 (the paper)."""

    shared = True

    def build(self, heads: int, head_dim: int) -> RelativeScheme:
        channels = int(head_dim * self.fraction)
        if channels < 2 or channels % 2:
            raise ConfigError(f"position: rotary turns pairs of channels, and {channels} of {head_dim} are to turn")
        return RotaryScheme(self, channels)


class RotaryScheme(RelativeScheme):
    def __init__(self, cfg: Rotary, channels: int):
        super().__init__()
        self.cfg, self.channels = cfg, channels

    def relate(self, q: Places, k: Places) -> Relation:
        if isinstance(self.cfg.scaling, DynamicNtkScaling):
            return Stretching(self.cfg, self.cfg.scaling, self.channels, q, k)
        freq = self.cfg.scaling.frequencies(self.cfg.theta, self.channels).to(q.pos.device)
        return Rotation(self.cfg, q.pos[..., None] * freq)


class Rotation(Relation):
    """The sines and cosines of one forward."""

    def __init__(self, cfg: Rotary, angle: Float[Tensor, "B T R/2"]):
        dtype, magnitude = torch.get_default_dtype(), cfg.scaling.magnitude
        self.halves = cfg.pairs == "halves"
        cos, sin = (wave[:, None].mul(magnitude).to(dtype) for wave in (angle.cos(), angle.sin()))  # (B, 1, T, R/2)
        self.cos, self.sin = self.join(cos, cos), self.join(-sin, sin)

    def rotate(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H T C"]:
        """(a, b) -> (a cos - b sin, b cos + a sin) for each pair, as x cos + swapped(x) (-sin, sin)."""
        R = self.cos.shape[-1]
        turning, still = x[..., :R].to(self.cos.dtype), x[..., R:]
        a, b = turning.chunk(2, dim=-1) if self.halves else (turning[..., 0::2], turning[..., 1::2])
        turned = torch.addcmul(turning * self.cos, self.join(b, a), self.sin).to(x.dtype)
        return torch.cat([turned, still], dim=-1) if still.shape[-1] else turned

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b], dim=-1) if self.halves else torch.stack([a, b], dim=-1).flatten(-2)


class Stretching(Relation):
    """Dynamic scaling: a query beyond the trained length sees all keys turned by frequencies of its own."""

    def __init__(self, cfg: Rotary, scaling: DynamicNtkScaling, channels: int, q: Places, k: Places):
        self.cfg, self.scaling, self.channels, self.q_pos, self.k_pos = cfg, scaling, channels, q.pos, k.pos

    def parts(self, q: Tensor, k: Tensor) -> list[tuple[slice, Tensor, Tensor]]:
        longest = (self.q_pos + 1).amax(dim=0)
        near = int((longest <= self.scaling.trained).sum())  # leading columns whose frequencies are the trained ones
        columns = [slice(0, near)] if near else []
        columns += [slice(i, i + 1) for i in range(near, q.shape[2])]
        return [(c, *self.turned(q[:, :, c], k, c)) for c in columns]

    def turned(self, q: Tensor, k: Tensor, column: slice) -> tuple[Tensor, Tensor]:
        pos = self.q_pos[:, column]
        freq = self.scaling.stretched(pos[:, -1] + 1, self.cfg.theta, self.channels)[:, None]  # (B, 1, R/2)
        return (Rotation(self.cfg, pos[..., None] * freq).rotate(q), Rotation(self.cfg, self.k_pos[..., None] * freq).rotate(k))
