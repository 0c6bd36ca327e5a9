"""Random augmentation of training images.

The random numbers come from torch's generator, which each step seeds with (seed, step): they are a function of both,
like dropout. B batch.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeInt
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.model.positions.tokens import Frames

ImageBatch = Float[Tensor, "B channels height width"]


@config
class NoAugment:
    """No augmentation."""

    def of(self, images: Tensor | Frames) -> Tensor | Frames:
        return images


@config
class ShiftAndFlip:
    """Shift each image by a few pixels, repeating its edges, and mirror it or not: the usual random crops of a padded
    image (He et al., arXiv:1512.03385, section 4.2)."""

    pixels: NonNegativeInt = 1
    """Maximum shift in pixels, in each direction."""
    flip: bool = False
    """Mirror half of the images left to right; not for letters and digits."""

    def of(self, images: Tensor | Frames) -> Tensor | Frames:
        assert isinstance(images, Tensor), "checked before a run begins"
        return _flipped(_moved(images, self.pixels)) if self.flip else _moved(images, self.pixels)


Augment = Annotated[NoAugment | ShiftAndFlip, OneOf()]


def _moved(images: ImageBatch, pixels: int) -> ImageBatch:
    if not pixels:
        return images
    B, _, H, W = images.shape
    larger = F.pad(images, (pixels,) * 4, mode="replicate")
    down, right = torch.randint(2 * pixels + 1, (2, B, 1)).to(images.device)
    rows = down + torch.arange(H, device=images.device)  # (B, H)
    columns = right + torch.arange(W, device=images.device)
    first = torch.arange(B, device=images.device)[:, None, None]
    return larger[first, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _flipped(images: ImageBatch) -> ImageBatch:
    mirrored = torch.rand(len(images)).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
