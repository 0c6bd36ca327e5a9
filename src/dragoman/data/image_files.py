"""Image files as arrays of pixels, prepared as a model's configuration says.

H height, W width, C channels; h, w height and width of the result.
"""

import io
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, tensor

from dragoman.errors import ConfigError, DataError
from dragoman.model.preprocessing import ExactSize, ImagePreprocessing, ResamplingFilter, ShortestEdge

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name for images of so many channels."""

# Damaged metadata say nothing about the pixels. Filters hold for all threads, so they are set once.
for _message, _module in (("", r"PIL\.TiffImagePlugin"), ("Possibly corrupt EXIF", r"PIL\.Image")):
    warnings.filterwarnings("ignore", _message, UserWarning, _module)


def is_pillow_image(given: Any) -> bool:
    """Return whether ``given`` is an image of Pillow."""
    try:
        from PIL import Image
    except ImportError:
        return False
    return isinstance(given, Image.Image)


def read_image(image: Any, channels: int, place: str, *, white: bool = False) -> UInt8[np.ndarray, "H W C"]:
    """Return the pixels of an image upright, as its EXIF data turn it, with so many channels.

    A palette and gray become colours, and transparency is dropped. Gray of 16 bits keeps its upper 8.

    Args:
        image: the path of a file, its bytes, or an image of Pillow.
        white: put white in the place of the one colour that a file marks as transparent.

    Raises:
        DataError: no such file, no image that can be read, or one whose gray values have no known range.
        ConfigError: Pillow is missing, or images cannot have so many channels.
        TypeError: ``image`` is none of these.
    """
    if channels not in MODES:
        raise ConfigError(f"model.inputs.channels: image files have 1, 3 or 4, not {channels}")
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ConfigError(f"{place}: image files need Pillow: pip install pillow (the extra images)") from None
    if not isinstance(image, str | Path | bytes | Image.Image):
        raise TypeError(f"{place}: a path, bytes or an image of Pillow is expected, not {type(image).__name__}")
    try:
        if isinstance(image, Image.Image):
            opened = nullcontext(image)
        else:
            opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
        with opened as given:
            upright, surplus = ImageOps.exif_transpose(given), _surplus_bits(given)
            if surplus:
                upright = Image.fromarray((np.asarray(upright) >> surplus).astype(np.uint8))
            if isinstance(upright.info.get("transparency"), bytes):
                del upright.info["transparency"]  # of a palette; Pillow drops it as well, and warns of it
            converted = upright.convert(MODES[channels])
    except FileNotFoundError:
        raise DataError(f"{place}: no such file") from None
    except MemoryError:
        raise
    except Exception as error:  # each decoder has its own: AVIF's raises RuntimeError
        raise DataError(f"{place}: not an image that can be read: {str(error) or type(error).__name__}") from None
    pixels = np.array(_on_white(converted) if white else converted)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _surplus_bits(image: Any) -> int:
    """Return the number of bits that a gray value has beyond 8: Pillow clips such values when it converts them.

    Raises:
        ValueError: the range of the values is unknown.
    """
    tags = getattr(image, "tag_v2", {})  # of TIFF
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _16_BITS_AS_32):
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            raise ValueError("its gray is inverted (WhiteIsZero) and has more than 8 bits: convert it to 8 bits")
        return tags.get(_BITS_PER_SAMPLE, (16,))[0] - 8
    if image.mode in ("I", "F"):
        raise ValueError(f"the range of its gray values is unknown (Pillow's mode {image.mode}): convert it to 8 bits")
    return 0


_16_BITS_AS_32 = ("PNG", "PPM")
"""Formats whose gray of 16 bits Pillow reads in mode I, of 32 bits; of PNG, until version 10.3."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def _on_white(image: Any) -> Any:
    if image.info.get("transparency") is None:
        return image
    white, through = image.convert("RGBA"), image.convert("RGBA")
    white.paste((255, 255, 255, 255), (0, 0, *image.size))
    white.alpha_composite(through)
    return white.convert(image.mode)


def prepare_pixels(
    pixels: UInt8[np.ndarray, "H W C"], cfg: ImagePreprocessing, place: str
) -> UInt8[np.ndarray, "h w C"]:
    """Return the pixels of an image resized and cropped.

    Raises:
        ConfigError: Pillow is missing.
    """
    size = resized(cfg, *pixels.shape[:2])
    if size != pixels.shape[:2]:
        pixels = _resample(pixels, size, cfg.filter, place)
    return pixels if cfg.crop is None else middle(pixels, *cfg.crop)


def _resample(
    pixels: UInt8[np.ndarray, "H W C"], size: tuple[int, int], kind: ResamplingFilter, place: str
) -> UInt8[np.ndarray, "h w C"]:
    """Resize each channel by itself: Pillow takes the last of 2 or 4 for transparency, and knows no 5."""
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError(f"{place}: resizing needs Pillow: pip install pillow (the extra images)") from None
    channels = map(Image.fromarray, np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    (height, width), number = size, get_args(ResamplingFilter).index(kind)
    return np.stack([np.asarray(channel.resize((width, height), resample=number)) for channel in channels], axis=2)


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
