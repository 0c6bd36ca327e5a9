"""Preparation of images for a model, as a description: data/image_files.py carries it out."""

from typing import Annotated, Literal

from pydantic import PositiveFloat, PositiveInt

from dragoman.config import OneOf, config

ResamplingFilter = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Name of a filter of Pillow, in the order of its numbers."""


@config
class ExactSize:
    """Resize to a height and a width, whatever the proportions of the image."""

    height: PositiveInt
    width: PositiveInt


@config
class ShortestEdge:
    """Resize until the shorter side has so many pixels; the proportions stay."""

    pixels: PositiveInt


@config
class OwnSize:
    """Do not resize."""


ImageSize = Annotated[ExactSize | ShortestEdge | OwnSize, OneOf()]


@config
class ImagePreprocessing:
    """Preparation of an image: resize, cut out the middle, scale the pixels, subtract a mean and divide by a spread."""

    size: ImageSize
    white: bool = False
    """Put white in the place of the one colour that a file marks as transparent. An alpha channel is dropped anyway."""
    filter: ResamplingFilter = "bilinear"
    """Filter that resizes."""
    crop: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of the middle that is cut out, with black around an image that is smaller; None for all."""
    scale: PositiveFloat | None = 1 / 255
    """Factor of pixels, which are whole numbers from 0 to 255; None for none."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from each channel after scaling: a number for each, or one for all."""
    std: tuple[PositiveFloat, ...] = (1.0,)
    """Divisor of each channel after that."""
