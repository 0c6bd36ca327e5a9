"""Positions of the patches of an image, with two coordinates.

B batch, T length, D width, C channels of one head, P pairs of channels. A class token comes before the patches.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.positions.position import Sinusoidal, SinusoidalEmbedding
from dragoman.model.positions.tokens import Positions

# ---- added to the patches --------------------------------------------------------------------------


@config
class LearnedGrid:
    """Learned positions: a vector for the class token and for each patch (Dosovitskiy et al., arXiv:2010.11929)."""

    stored: tuple[PositiveInt, PositiveInt] | None = None
    """Rows and columns that were learned, resampled by a bicubic filter to those of the model (DINOv2,
    arXiv:2304.07193); None for as many as the model has."""

    def build(self, dim: int, grid: tuple[int, int], before: int) -> nn.Module:
        if self.stored in (None, grid):
            return LearnedGridEmbedding(before + grid[0] * grid[1], dim)
        return ResampledGridEmbedding(self.stored, grid, before, dim)


@config
class SinusoidalGrid:
    """Sinusoidal positions: half of the channels encode the row, half the column; nothing is added to the class token
    (He et al., arXiv:2111.06377)."""

    base: PositiveFloat = 10_000.0

    def build(self, dim: int, grid: tuple[int, int], before: int) -> nn.Module:
        if dim % 4:
            raise ConfigError(f"position: two coordinates need a width that 4 divides, and the width is {dim}")
        return SinusoidalGridEmbedding(self, dim, before)


@config
class NoGrid:
    """No added positions: they enter inside attention, or not at all."""

    def build(self, dim: int, grid: tuple[int, int], before: int) -> nn.Module:
        return NoGridEmbedding()


GridPosition = Annotated[LearnedGrid | SinusoidalGrid | NoGrid, OneOf()]


class LearnedGridEmbedding(nn.Embedding):
    def forward(self, x: Float[Tensor, "B T D"], positions: Positions) -> Float[Tensor, "B T D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x + super().forward(positions.pos)


class ResampledGridEmbedding(nn.Embedding):
    """Learned positions of a grid with other rows and columns than the model's."""

    def __init__(self, stored: tuple[int, int], grid: tuple[int, int], before: int, dim: int):
        super().__init__(before + stored[0] * stored[1], dim)
        self.stored, self.grid, self.before = stored, grid, before

    def forward(self, x: Float[Tensor, "B T D"], positions: Positions) -> Float[Tensor, "B T D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        learned = self.weight[self.before :].view(1, *self.stored, -1).permute(0, 3, 1, 2).float()
        resampled = F.interpolate(learned, size=self.grid, mode="bicubic", align_corners=False)
        rows = resampled.to(self.weight.dtype).flatten(2).transpose(1, 2)
        return x + torch.cat([self.weight[None, : self.before], rows], dim=1)


class SinusoidalGridEmbedding(nn.Module):
    def __init__(self, cfg: SinusoidalGrid, dim: int, before: int):
        super().__init__()
        self.before = before
        self.coordinate = SinusoidalEmbedding(Sinusoidal(base=cfg.base, layout="halves"), dim // 2)

    def forward(self, x: Float[Tensor, "B T D"], positions: Positions) -> Float[Tensor, "B T D"]:
        assert positions.row is not None and positions.column is not None
        cos_sin = torch.cat(
            [self.coordinate.sinusoids(positions.row), self.coordinate.sinusoids(positions.column)], dim=-1
        )
        cos_sin[:, : self.before] = 0
        return x + cos_sin.to(x.dtype)


class NoGridEmbedding(nn.Module):
    def forward(self, x: Float[Tensor, "B T D"], positions: Positions) -> Float[Tensor, "B T D"]:
        return x
