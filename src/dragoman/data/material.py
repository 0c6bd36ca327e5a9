"""Conversion of texts, images and float frames to rows of numbers and to model inputs.

One class for each kind of input in ``model/inputs.py``; training and inference use the same conversion.

N examples, B of them in a batch, T length, C channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.data.finite import finite_float32
from dragoman.data.image_files import is_pillow_image, normalized, prepare_pixels, read_image
from dragoman.data.padding import padded
from dragoman.errors import ConfigError, DataError
from dragoman.model.inputs import FrameInput, Input, PatchInput, TokenInput
from dragoman.model.positions.tokens import Frames
from dragoman.model.preprocessing import ExactSize, ImagePreprocessing
from dragoman.text.lines import check_surrogates
from dragoman.text.tokens.tokenizer import INPUT_FRAME, Tokenizer

LONGEST = 512
"""Maximum number of ids of a text, where neither the run nor its model sets it."""


class Material(ABC):
    """Converter for one kind of input."""

    what: str
    """Plural name in messages."""

    @property
    @abstractmethod
    def numbers(self) -> int | str:
        """Value type of the column that stores such rows: see ``store.building``."""

    @abstractmethod
    def rows(self, given: Sequence[Any], places: Sequence[str]) -> list[np.ndarray]:
        """Return the flat numbers of each example.

        Raises:
            DataError: the model cannot read an example; the message begins with its location.
        """

    @abstractmethod
    def restored(self, row: np.ndarray) -> Any:
        """Return the example of a row. The model reads the same of it as of the row: nothing is prepared twice."""

    @abstractmethod
    def positions(self, lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """Return the number of vectors the model computes for rows of these lengths."""

    @abstractmethod
    def collate(self, rows: Sequence[np.ndarray]) -> Tensor | Frames:
        """Return the model input of a batch."""


class IdMaterial(Material):
    """Texts, from bos to eos, or as an imported tokenizer frames them. A row is never empty."""

    what = "texts"

    def __init__(self, tokenizer: Tokenizer, longest: int):
        self.tokenizer, self.longest = tokenizer, longest

    @property
    def numbers(self) -> int:
        return len(self.tokenizer)

    def rows(self, given: Sequence[Any], places: Sequence[str]) -> list[np.ndarray]:
        for text, place in zip(given, places, strict=True):
            check_surrogates(text, place)
        frame = self.tokenizer.frame(INPUT_FRAME)
        room = self.longest - len(frame)
        rows = [frame.around(ids[:room]) for ids in self.tokenizer.encode_batch(given)]
        return [np.array(row or INPUT_FRAME.around(row), np.int64) for row in rows]

    def restored(self, row: np.ndarray) -> str:
        return self.tokenizer.decode(row)

    def positions(self, lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        return lengths

    def collate(self, rows: Sequence[np.ndarray]) -> Int[Tensor, "B T"]:
        return padded(rows)


def to_device(inputs: Tensor | Frames, device: torch.device | str) -> Tensor | Frames:
    """Return ``inputs`` on ``device``."""
    return _each(inputs, lambda tensor: tensor.to(device, non_blocking=True))


def repeat_batch(inputs: Tensor | Frames, times: int) -> Tensor | Frames:
    """Return the batch concatenated ``times`` times."""
    return inputs if times == 1 else _each(inputs, lambda tensor: torch.cat([tensor] * times))


def _each(inputs: Tensor | Frames, change: Callable[[Tensor], Tensor]) -> Tensor | Frames:
    if isinstance(inputs, Tensor):
        return change(inputs)
    return Frames(change(inputs.values), None if inputs.keep is None else change(inputs.keep))


class ImageMaterial(Material):
    """Images as arrays, height x width or height x width x channels, or as files: paths, bytes, or images of Pillow.

    Files are turned upright and converted to the channels that the model reads. Files and integers from 0 to 255 are
    prepared as ``cfg.preprocessing`` says; without it, they are scaled to -1 to 1, as in ViT, and files are converted
    to the model's size with ``resize``. Float arrays are used as they are. A row holds pixels, or, where ``numbers`` is
    ``<f4``, the values that the model reads.
    """

    what = "images"

    def __init__(self, cfg: PatchInput, *, resize: bool = False, numbers: str = "|u1"):
        self.cfg, self.resize, self._numbers = cfg, resize, numbers
        self.shape = (cfg.channels, *cfg.size)

    @property
    def numbers(self) -> str:
        return self._numbers

    def rows(self, given: Sequence[Any], places: Sequence[str]) -> list[np.ndarray]:
        return [self._row(image, place) for image, place in zip(given, places, strict=True)]

    def _row(self, image: Any, place: str) -> np.ndarray:
        array = self._prepared(image, place)
        C, H, W = self.shape
        if array.shape != (H, W, C):
            got, wanted = (" x ".join(map(str, shape)) for shape in (array.shape, (H, W, C)))
            raise DataError(
                f"{place}: an image of {got} (height, width, channels), and the model reads {wanted}: "
                + self._advice(array, is_array=isinstance(image, np.ndarray))
            )
        if array.dtype != np.uint8 and array.dtype.kind != "f":
            raise DataError(
                f"{place}: an image of {array.dtype}: must be whole numbers from 0 to 255 (uint8) or floats"
            )
        values = array if array.dtype == np.uint8 else finite_float32(array, place, ("row", "column", "channel"))
        row = np.array(values.transpose(2, 0, 1), order="C").ravel()
        return row if self.numbers == "|u1" else self._values(row).numpy().ravel()

    def _prepared(self, image: Any, place: str) -> np.ndarray:
        """Return an array as it is given, with its channels, or pixels resized and cropped."""
        (C, H, W), preparation = self.shape, self.cfg.preprocessing
        if isinstance(image, np.ndarray):
            array = image[:, :, None] if image.ndim == 2 else image
        elif isinstance(image, str | Path | bytes) or is_pillow_image(image):
            array = read_image(image, C, place, white=preparation is not None and preparation.white)
            if preparation is None and self.resize:
                preparation = ImagePreprocessing(size=ExactSize(height=H, width=W))
        else:
            raise DataError(
                f"{place}: an image is a path, the bytes of a file, an image of Pillow or an array of NumPy, and this "
                f"is {type(image).__module__}.{type(image).__qualname__}"
            )
        return prepare_pixels(array, preparation, place) if preparation and self._has_pixels(array) else array

    def _advice(self, array: np.ndarray, *, is_array: bool) -> str:
        """Return what helps with an image of the wrong shape."""
        if array.ndim != 3 or array.shape[2] != self.cfg.channels:
            return "change the array, or train with other model.inputs"
        if self.cfg.preprocessing is not None and self._has_pixels(array):
            return "model.inputs.preprocessing must make images of the size in model.inputs"
        also = "" if is_array else ", or with data.other_sizes=resize"
        return f"resize it, or train with another size in model.inputs{also}"

    def _has_pixels(self, array: np.ndarray) -> bool:
        """Return whether an array holds an image of any size, in whole numbers from 0 to 255."""
        return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == self.cfg.channels and array.size > 0

    def restored(self, row: np.ndarray) -> np.ndarray:
        return self._values(row)[0].numpy().transpose(1, 2, 0)

    def positions(self, lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        H, W = self.cfg.size
        patches = H * W // self.cfg.patch**2 + int(self.cfg.class_token)
        return np.full_like(lengths, patches)

    def collate(self, rows: Sequence[np.ndarray]) -> Float[Tensor, "B C height width"]:
        if len({row.dtype for row in rows}) > 1:  # stacking would make pixels floats that are used as they are
            return torch.cat([self._values(row) for row in rows])
        return self._values(np.stack(rows))

    def _values(self, rows: np.ndarray) -> Float[Tensor, "B C height width"]:
        """Return rows as the model reads them: pixels are normalised, floats stay."""
        images = torch.from_numpy(rows).view(-1, *self.shape)
        return normalized(images, self.cfg.preprocessing) if images.dtype == torch.uint8 else images


class FrameMaterial(Material):
    """Float frames as arrays, length x channels. Those after the first ``longest`` are not read; None reads all."""

    what = "frames"

    def __init__(self, cfg: FrameInput, longest: int | None):
        self.cfg, self.channels, self.longest = cfg, cfg.channels, longest

    @property
    def numbers(self) -> str:
        return "<f4"

    def rows(self, given: Sequence[Any], places: Sequence[str]) -> list[np.ndarray]:
        return [self._row(frames, place) for frames, place in zip(given, places, strict=True)]

    def _row(self, frames: Any, place: str) -> np.ndarray:
        if not isinstance(frames, np.ndarray) or frames.dtype.kind not in "fiu":
            raise DataError(f"{place}: the model reads frames, arrays of numbers, and this is not one")
        if frames.ndim != 2 or frames.shape[1] != self.channels or not len(frames):
            got = " x ".join(map(str, frames.shape))
            raise DataError(f"{place}: an array of {got}, and the model reads length x {self.channels}")
        return np.ascontiguousarray(finite_float32(frames[: self.longest], place, ("frame", "channel"))).ravel()

    def cut(self, given: Iterable[np.ndarray]) -> int:
        """Return the number of arrays that have more frames than are read."""
        return 0 if self.longest is None else sum(len(frames) > self.longest for frames in given)

    def restored(self, row: np.ndarray) -> np.ndarray:
        return row.reshape(-1, self.channels)

    def positions(self, lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        return self.cfg.positions(lengths // self.channels)

    def collate(self, rows: Sequence[np.ndarray]) -> Frames:
        lengths = [len(row) // self.channels for row in rows]
        values = torch.zeros(len(rows), max(lengths), self.channels)
        for i, row in enumerate(rows):
            values[i, : lengths[i]] = torch.from_numpy(row.reshape(-1, self.channels))
        keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return Frames(values, None if bool(keep.all()) else keep)


def material_of(
    inputs: Input, tokenizer: Tokenizer | None, *, longest: int | None, resize: bool = False, numbers: str = "|u1"
) -> Material:
    """Return the converter for ``inputs``. ``longest`` limits texts and frames, as do the model's positions;
    ``numbers`` is the value type of images.

    Raises:
        ConfigError: the model reads texts and there is no tokenizer.
    """
    match inputs:
        case TokenInput():
            if tokenizer is None:
                raise ConfigError("model.inputs: this model reads ids, and there is no tokenizer to make them")
            return IdMaterial(tokenizer, _least(longest, inputs.position.length) or LONGEST)
        case PatchInput():
            return ImageMaterial(inputs, resize=resize, numbers=numbers)
        case FrameInput():
            return FrameMaterial(inputs, _least(longest, inputs.longest))


def _least(*limits: int | None) -> int | None:
    """Return the smallest limit; None where there is none."""
    return min(filter(None, limits), default=None)
