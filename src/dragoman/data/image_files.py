"""Image files as arrays of pixels, prepared as a model's configuration says.

H height, W width, C channels.
"""

import io
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, tensor

from dragoman.errors import ConfigError, DataError
from dragoman.model.preprocessing import ExactSize, ImagePreprocessing, ResamplingFilter, ShortestEdge

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name for images of so many channels."""


def open_image(image: bytes | Path, channels: int, place: str) -> Any:
    """Return an image file upright, as its EXIF data turn it, with so many channels.

    A palette and gray become colours, and transparency is dropped.

    Raises:
        DataError: no such file, or no image that can be read.
        ConfigError: Pillow is missing, or images cannot have so many channels.
    """
    if channels not in MODES:
        raise ConfigError(f"model.inputs.channels: image files have 1, 3 or 4, not {channels}")
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ConfigError(f"{place}: image files need Pillow: pip install pillow (the extra images)") from None
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            return ImageOps.exif_transpose(opened).convert(MODES[channels])
    except FileNotFoundError:
        raise DataError(f"{place}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: not an image that can be read: {error}") from None


def image_of(pixels: UInt8[np.ndarray, "H W C"], place: str) -> Any:
    """Return pixels as an image of Pillow.

    Raises:
        ConfigError: Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError(f"{place}: resizing needs Pillow: pip install pillow (the extra images)") from None
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def prepare_pixels(image: Any, cfg: ImagePreprocessing) -> UInt8[np.ndarray, "H W C"]:
    """Return the pixels of a Pillow image resized and cropped."""
    if cfg.white and image.info.get("transparency") is not None:
        white, through = image.convert("RGBA"), image.convert("RGBA")
        white.paste((255, 255, 255, 255), (0, 0, *image.size))
        white.alpha_composite(through)
        image = white.convert(image.mode)
    width, height = image.size
    size = resized(cfg, height, width)
    if size != (height, width):
        image = image.resize(size[::-1], resample=get_args(ResamplingFilter).index(cfg.filter))
    pixels = np.array(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return pixels if cfg.crop is None else middle(pixels, *cfg.crop)


def resized(cfg: ImagePreprocessing, height: int, width: int) -> tuple[int, int]:
    """Return the height and width after resizing."""
    match cfg.size:
        case ExactSize(height=h, width=w):
            return h, w
        case ShortestEdge(pixels=pixels):
            longer = int(pixels * max(height, width) / min(height, width))
            return (longer, pixels) if width <= height else (pixels, longer)
    return height, width


def middle(pixels: UInt8[np.ndarray, "H W C"], height: int, width: int) -> UInt8[np.ndarray, "h w C"]:
    """Return the middle of an image, with black around one that is smaller."""
    H, W, C = pixels.shape
    tall, wide = max(height, H), max(width, W)
    around = np.zeros((tall, wide, C), pixels.dtype)
    down, right = -((H - tall) // 2), -((W - wide) // 2)  # rounded up
    around[down : down + H, right : right + W] = pixels
    top, left = (H - height) // 2 + down, (W - width) // 2 + right
    top, left = max(0, top), max(0, left)
    return around[top : top + height, left : left + width]


def normalized(pixels: UInt8[Tensor, "B C H W"], cfg: ImagePreprocessing | None) -> Float[Tensor, "B C H W"]:
    """Return pixels as the model reads them; from -1 to 1 without a configuration, as in ViT."""
    if cfg is None:
        return pixels / 127.5 - 1
    values = pixels.double() if cfg.scale is None else pixels.double() * cfg.scale
    mean, std = (tensor(numbers, dtype=values.dtype).view(-1, 1, 1) for numbers in (cfg.mean, cfg.std))
    return ((values - mean) / std).float()
