"""Rotary positions: rotate each pair of channels by position * frequency, so that q.k depends on distance only.

B batch, T length, H heads, C channels of one head, R rotated channels (R <= C) in P pairs.
Su et al., arXiv:2104.09864; scaling for texts longer than those trained on: arXiv:2306.15595, arXiv:2309.00071.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.exact import overrides
from dragoman.model.ops import attention as kernels
from dragoman.model.positions.effect import PositionEffect, RelativeScheme
from dragoman.model.positions.tokens import Positions

# ---- scaling of frequencies ------------------------------------------------------------------------


def frequencies(theta: float, channels: int) -> Float[Tensor, " P"]:
    """Return theta^(-2i/R) for each pair i, whose wavelength is 2 pi / frequency tokens."""
    return theta ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)


@config
class NoScaling:
    """No scaling of frequencies."""

    magnitude = 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta, channels)


@config
class LinearScaling:
    """Position interpolation: divide every position by ``factor`` (Chen et al., arXiv:2306.15595)."""

    factor: PositiveFloat

    magnitude = 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta, channels) / self.factor


@config
class NtkScaling:
    """NTK-aware scaling by a larger base: the slowest pair is interpolated by ``factor``, the fastest hardly at all."""

    factor: PositiveFloat

    magnitude = 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta * self.factor ** (channels / (channels - 2)), channels)


@config
class DynamicNtkScaling:
    """NTK-aware scaling with a factor that grows with the text: 1 up to the ``trained`` length.

    The length is each query's own (its position + 1), not the longest in the batch. So neither later tokens nor other
    rows change an output, and decoding with a cache equals one forward. Keys are cached unrotated.
    """

    trained: PositiveInt
    """Length in tokens that the model was trained on."""
    factor: PositiveFloat = 1.0

    magnitude = 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta, channels)

    def stretched(self, length: Int[Tensor, " B"], theta: float, channels: int) -> Float[Tensor, "B P"]:
        growth = (self.factor * length.double() / self.trained - (self.factor - 1)).clamp(min=1.0)
        base = theta * growth ** (channels / (channels - 2))
        index = torch.arange(0, channels, 2, dtype=torch.float64, device=length.device)
        return base[:, None] ** (-index / channels)


@config
class Yarn:
    """YaRN: interpolate slow pairs, keep fast ones, ramp between; sharpen attention (Peng et al.,
    arXiv:2309.00071)."""

    factor: PositiveFloat
    trained: PositiveInt
    """Length in tokens that the model was trained on."""
    fast: PositiveFloat = 32.0
    """Turns over ``trained`` tokens above which a pair is kept."""
    slow: PositiveFloat = 1.0
    """Turns over ``trained`` tokens below which a pair is interpolated."""

    @property
    def magnitude(self) -> float:
        """Factor of queries and keys (section 3.4)."""
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        def pair(turns: float) -> float:
            return channels * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = max(math.floor(pair(self.fast)), 0), min(math.ceil(pair(self.slow)), channels - 1)
        index = torch.arange(channels // 2, dtype=torch.float64)
        keep = 1 - ((index - low) / max(high - low, 0.001)).clamp(0, 1)
        freq = frequencies(theta, channels)
        return freq * keep + freq / self.factor * (1 - keep)


@config
class Llama3Scaling:
    """Scaling of Llama 3.1 (arXiv:2407.21783): interpolate slow pairs by ``factor``, keep fast ones, blend linearly in
    the number of turns between."""

    factor: PositiveFloat
    trained: PositiveInt
    """Length in tokens that the model was trained on before scaling."""
    fast: PositiveFloat = 4.0
    """Turns over ``trained`` tokens above which a pair is kept."""
    slow: PositiveFloat = 1.0
    """Turns over ``trained`` tokens below which a pair is interpolated."""

    magnitude = 1.0

    def frequencies(self, theta: float, channels: int) -> Tensor:
        freq = frequencies(theta, channels)
        turns = self.trained * freq / (2 * math.pi)
        keep = ((turns - self.slow) / (self.fast - self.slow)).clamp(0, 1)
        return freq * keep + freq / self.factor * (1 - keep)


@config
class LongRope:
    """LongRoPE: divide each pair's frequency by a factor of its own, found by search (Ding et al., arXiv:2402.13753).

    There is a list of factors for texts of up to ``trained`` tokens, and one for longer texts, which turns all of their
    tokens. So a text that grows beyond is read again (``model/rereading.py``).
    """

    trained: PositiveInt
    """Length in tokens that the model was trained on before scaling."""
    short: tuple[PositiveFloat, ...]
    """Factor of each pair, in texts of up to ``trained`` tokens."""
    long: tuple[PositiveFloat, ...]
    """Factor of each pair, in longer texts."""
    magnitude: PositiveFloat = 1.0
    """Factor of queries and keys, in all texts."""

    def frequencies(self, theta: float, channels: int) -> Tensor:
        return frequencies(theta, channels) / torch.tensor(self.short, dtype=torch.float64)

    def selected(self, where: Positions, theta: float, channels: int) -> Float[Tensor, "B T P"]:
        """Return the frequencies of each token, which are those of its text."""
        of_length = [
            frequencies(theta, channels) / torch.tensor(f, dtype=torch.float64) for f in (self.short, self.long)
        ]
        short, long = (freq.to(where.pos.device) for freq in of_length)
        return torch.where(longest_of_text(where)[..., None] < self.trained, short, long)

    def check(self, channels: int) -> None:
        """Raise ConfigError where there is not a factor for each pair."""
        for name in ("short", "long"):
            if (given := len(getattr(self, name))) != channels // 2:
                raise ConfigError(
                    f"position.scaling.{name}: {given} factors, for {channels // 2} pairs of channels that are rotated"
                )


def longest_of_text(where: Positions) -> Int[Tensor, "B T"]:
    """Return for each token the last position of the text that it belongs to."""
    if where.segment is None or where.pos.is_meta:
        return where.pos.amax(dim=1, keepdim=True).expand_as(where.pos)
    segment = where.segment.long().expand_as(where.pos)
    segment = segment - segment.amin()
    longest = where.pos.new_zeros(len(segment), int(segment.amax()) + 1)
    return longest.scatter_reduce(1, segment, where.pos, "amax").gather(1, segment)


RotaryScaling = Annotated[
    NoScaling | LinearScaling | NtkScaling | DynamicNtkScaling | Yarn | Llama3Scaling | LongRope, OneOf()
]

# ---- schemes ---------------------------------------------------------------------------------------


@config
class Rotary:
    """Rotary position embeddings (Su et al., arXiv:2104.09864)."""

    theta: PositiveFloat = 10_000.0
    """Base of the wavelengths; larger reaches further."""
    scaling: RotaryScaling = NoScaling()
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of each head's channels that is rotated; the rest has no position."""
    pairs: Literal["halves", "neighbours"] = "halves"
    """Pairing of channels: i and i + P (LLaMA in Hugging Face layout), or 2i and 2i + 1 (the paper)."""

    shared = True

    def build(self, heads: int, head_dim: int) -> RelativeScheme:
        channels = int(head_dim * self.fraction)
        if channels < 2 or channels % 2:
            raise ConfigError(f"position: rotary needs pairs of channels, and would rotate {channels} of {head_dim}")
        if channels == 2 and isinstance(self.scaling, NtkScaling | DynamicNtkScaling):
            raise ConfigError("position.scaling: NTK scaling needs two pairs of channels at least, and there is one")
        if isinstance(self.scaling, LongRope):
            self.scaling.check(channels)
        return RotaryScheme(self, channels)


class RotaryScheme(RelativeScheme):
    """Rotation of queries and keys."""

    def __init__(self, cfg: Rotary, channels: int):
        super().__init__()
        self.cfg, self.channels = cfg, channels
        self.limits = (cfg.scaling.trained,) if isinstance(cfg.scaling, LongRope) else ()

    def effect(self, q: Positions, k: Positions, dtype: torch.dtype) -> PositionEffect:
        if isinstance(self.cfg.scaling, DynamicNtkScaling):
            return DynamicRotaryEffect(self.cfg, self.cfg.scaling, self.channels, q, k, dtype)
        if isinstance(self.cfg.scaling, LongRope):
            freq = self.cfg.scaling.selected(q, self.cfg.theta, self.channels)
            return RotaryEffect(self.cfg, q.pos[..., None] * freq, dtype)
        freq = self.cfg.scaling.frequencies(self.cfg.theta, self.channels).to(q.pos.device)
        return RotaryEffect(self.cfg, q.pos[..., None] * freq, dtype)


@config
class RotaryGrid:
    """Rotary positions in an image: the first half of the pairs is rotated by the row, the second by the column."""

    theta: PositiveFloat = 10_000.0
    """Base of the wavelengths; larger reaches further."""

    shared = True
    needs_grid = True

    def build(self, heads: int, head_dim: int) -> RelativeScheme:
        if head_dim % 4:
            raise ConfigError(f"position: two coordinates turn pairs of channels each: 4 do not divide {head_dim}")
        return RotaryGridScheme(self, head_dim)


class RotaryGridScheme(RelativeScheme):
    """Rotation by rows and columns."""

    def __init__(self, cfg: RotaryGrid, channels: int):
        super().__init__()
        self.cfg, self.channels = cfg, channels

    def effect(self, q: Positions, k: Positions, dtype: torch.dtype) -> PositionEffect:
        if q.row is None or q.column is None:
            raise ConfigError(
                "model: mixer.position: rotary_grid turns by rows and columns, and what is read here has none"
            )
        freq = frequencies(self.cfg.theta, self.channels // 2).to(q.pos.device)
        angle = torch.cat([q.row[..., None] * freq, q.column[..., None] * freq], dim=-1)
        return RotaryEffect(Rotary(), angle, dtype)


class RotaryEffect(PositionEffect):
    """Sines and cosines of one forward."""

    def __init__(self, cfg: Rotary, angle: Float[Tensor, "B T P"], dtype: torch.dtype):
        self.halves, magnitude = cfg.pairs == "halves", cfg.scaling.magnitude
        cos, sin = (wave[:, None].mul(magnitude).to(dtype) for wave in (angle.cos(), angle.sin()))  # (B, 1, T, P)
        self.cos, self.sin = self.join(cos, cos), self.join(-sin, sin)
        self.cos_sin = torch.cat([cos, sin], dim=-1)[:, 0]

    def rotate(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H T C"]:
        """Map each pair (a, b) to (a cos - b sin, b cos + a sin), as x cos + swapped(x) (-sin, sin)."""
        if self.halves and not overrides(self, RotaryEffect, "join") and kernels.supports_rotation(x, self.cos_sin):
            return kernels.RotateFunction.apply(x, self.cos_sin)
        R = self.cos.shape[-1]
        turning, still = x[..., :R].to(self.cos.dtype), x[..., R:]
        a, b = turning.chunk(2, dim=-1) if self.halves else (turning[..., 0::2], turning[..., 1::2])
        turned = torch.addcmul(turning * self.cos, self.join(b, a), self.sin).to(x.dtype)
        return torch.cat([turned, still], dim=-1) if still.shape[-1] else turned

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b], dim=-1) if self.halves else torch.stack([a, b], dim=-1).flatten(-2)


class DynamicRotaryEffect(PositionEffect):
    """Rotation with dynamic scaling: a query beyond the trained length rotates all keys by frequencies of its own."""

    def __init__(
        self, cfg: Rotary, scaling: DynamicNtkScaling, channels: int, q: Positions, k: Positions, dtype: torch.dtype
    ):
        self.cfg, self.scaling, self.channels, self.dtype = cfg, scaling, channels, dtype
        self.q_pos, self.k_pos = q.pos, k.pos
        within = (q.pos < scaling.trained).all(dim=0)
        near = int(within.cumprod(dim=0).sum())  # leading queries, whose frequencies are the trained ones
        self.sizes = [near] * (near > 0) + [1] * (len(within) - near)

    @property
    def fusable(self) -> bool:
        return len(self.sizes) == 1 and not overrides(self, DynamicRotaryEffect, "parts", "values")

    def parts(self, q: Tensor, k: Tensor) -> list[tuple[Tensor, Tensor]]:
        groups = zip(q.split(self.sizes, dim=2), self.q_pos.split(self.sizes, dim=1), strict=True)
        return [self.turned(queries, pos, k) for queries, pos in groups]

    def turned(self, q: Tensor, pos: Int[Tensor, "B T"], k: Tensor) -> tuple[Tensor, Tensor]:
        freq = self.scaling.stretched(pos[:, -1] + 1, self.cfg.theta, self.channels)[:, None]  # (B, 1, P)
        turn_q, turn_k = (RotaryEffect(self.cfg, p[..., None] * freq, self.dtype) for p in (pos, self.k_pos))
        return turn_q.rotate(q), turn_k.rotate(k)
