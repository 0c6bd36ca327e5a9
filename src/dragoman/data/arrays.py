"""Labelled images and float frames: folders of image files, arrays in .npz and Parquet files, and scikit-learn's
digits.

N examples, H x W pixels, T frames of C numbers.
"""

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import PositiveInt

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.compressed import read_bytes
from dragoman.text.splits import Overlapping, SplitExamples, check_known, split_labelled_examples

IMAGES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".jp2", ".avif", ".heic", ".heif", ".pbm", ".pgm", ".ppm",
})  # fmt: skip
"""Endings of image files. Those that Pillow cannot read here are refused by name where they are read, not left out."""


class LabelledArray(NamedTuple):
    """Labelled image or array of frames."""

    given: Any
    """Array, or an image file as its path or its bytes."""
    label: str
    where: str
    """Name of the example in error messages."""
    source: str
    """Digest of the content in letters, by which held-out examples are compared with training examples."""

    @property
    def target(self) -> str:
        return self.source

    @property
    def texts(self) -> tuple[str, ...]:
        return ()


def digest(content: bytes) -> str:
    """Return a digest of ``content`` in letters alone, because texts are compared by their letters."""
    return blake2b(content, digest_size=16).hexdigest().translate(_LETTERS)


_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def _of_array(array: np.ndarray, label: str, where: str) -> LabelledArray:
    return LabelledArray(array, label, where, digest(repr(array.shape).encode() + array.tobytes()))


def _label(given: Any, name: str, where: str) -> str:
    """Return a label as a text.

    Raises:
        DataError: none is given, or one that is neither a whole number nor a text.
    """
    empty = isinstance(given, str) and not given.strip()
    if given is None or empty or (isinstance(given, float) and math.isnan(given)):
        raise DataError(f"{where}: no label in {name!r}: fill it, or remove the example")
    if not isinstance(given, str | int | np.integer | np.bool_):
        raise DataError(f"{where}: the label {given!r} in {name!r} must be a whole number or a text: convert it")
    return str(given)


# ---- files ----------------------------------------------------------------------------------------


@config
class ImageFolder:
    path: str
    """Folder with a subfolder for each label, which contains the image files. Hidden files and folders are left out."""

    def read(self) -> Iterator[LabelledArray]:
        if not Path(self.path).exists():
            raise DataError(f"{self.path}: no such folder")
        if not Path(self.path).is_dir():
            raise DataError(f"{self.path}: a file: name a folder with a folder of images for each label")
        top = Path(self.path)
        for folder in sorted(path for path in top.iterdir() if path.is_dir() and not _is_hidden(path, top)):
            for path in image_files(folder):
                yield LabelledArray(path, folder.name, str(path), digest(read_bytes(path)))


def image_files(folder: Path) -> list[Path]:
    """Return all image files below ``folder``, sorted by path, without hidden files and folders.

    Raises:
        DataError: there are none.
    """
    images = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    if not (files := sorted(path for path in images if not _is_hidden(path, folder))):
        raise DataError(f"{folder}: holds no image files ({', '.join(sorted(IMAGES))})")
    return files


def _is_hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


@config
class Arrays:
    path: str
    """A .npz file, as numpy.savez writes it."""
    inputs: str = "x"
    """Name of the array of images (N x H x W or N x H x W x channels) or of frames (N x T x C)."""
    labels: str = "y"
    """Name of the array of N labels, whole numbers or texts."""
    lengths: str | None = None
    """Name of an array that says how many frames of each example are real; None for all of them."""

    def read(self) -> Iterator[LabelledArray]:
        inputs, labels = (self._array(name) for name in (self.inputs, self.labels))
        if labels.shape != inputs.shape[:1] or labels.dtype.kind not in "iuUb":
            raise DataError(
                f"{self.path}: {self.labels!r} must hold a whole number or a text for each of the {len(inputs):,} "
                f"examples; it is {labels.dtype} of shape {labels.shape}"
            )
        lengths = self._frame_counts(inputs)
        for i, (array, label) in enumerate(zip(inputs, labels, strict=True)):
            where = f"{self.path}: example {i + 1}"
            yield _of_array(array if lengths is None else array[: lengths[i]], _label(label, self.labels, where), where)

    def _frame_counts(self, inputs: np.ndarray) -> np.ndarray | None:
        if self.lengths is None:
            return None
        lengths, most = self._array(self.lengths), inputs.shape[1] if inputs.ndim > 1 else 0
        if lengths.shape != inputs.shape[:1] or lengths.dtype.kind not in "iu":
            raise DataError(
                f"{self.path}: {self.lengths!r} must hold a whole number of frames for each of the {len(inputs):,} "
                f"examples; it is {lengths.dtype} of shape {lengths.shape}"
            )
        wrong = np.flatnonzero((lengths < 1) | (lengths > most))
        if len(wrong):
            example, length = wrong[0] + 1, lengths[wrong[0]]
            raise DataError(
                f"{self.path}: example {example}: {self.lengths!r} must be from 1 to {most}, the frames that it has; "
                f"it is {length}"
            )
        return lengths

    def _array(self, name: str) -> np.ndarray:
        try:
            with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                if name not in file:
                    raise DataError(f"{self.path}: no array {name!r} among {', '.join(map(repr, file)) or 'none'}")
                return np.atleast_1d(file[name])
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file") from None
        except (OSError, TypeError, AttributeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{self.path}: not a .npz file of plain arrays (numbers or texts), or damaged{_reason(error)}"
            ) from None


def _reason(error: Exception) -> str:
    """Return what is wrong with a file; nothing where NumPy only says how to call it (``allow_pickle``)."""
    if not isinstance(error, OSError | EOFError | zipfile.BadZipFile | zlib.error):
        return ""
    said = (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0]
    return f": {said}" if said else ""


def read_array(path: Path) -> np.ndarray:
    """Read the array of a .npy file, whose first dimension is the examples.

    Raises:
        DataError: no such file, or it holds something else.
    """
    try:
        with open(path, "rb") as file:  # of an archive that is damaged, NumPy leaves its own file open
            array = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a .npy file of plain numbers, or damaged{_reason(error)}") from None
    if not isinstance(array, np.ndarray) or array.ndim < 3:
        raise DataError(f"{path}: must hold one array, of N images or N rows of frames")
    return array


@config
class ArrayTable:
    path: str
    """A .parquet file."""
    inputs: str = "image"
    """Column of the images or frames: nested lists of numbers, or image files (their bytes, or a struct with bytes)."""
    labels: str = "label"
    """Column of the labels, whole numbers or texts."""

    def read(self) -> Iterator[LabelledArray]:
        for number, (cell, given) in enumerate(self._cells(), 1):
            where = f"{self.path}: row {number}"
            label = _label(given, self.labels, where)
            cell = cell.get("bytes") if isinstance(cell, dict) else cell
            if isinstance(cell, bytes):
                yield LabelledArray(cell, label, where, digest(cell))
            else:
                yield _of_array(_numbers(cell, where), label, where)

    def _cells(self) -> Iterator[tuple[Any, Any]]:
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError:
            raise ConfigError(f"{self.path}: Parquet needs pyarrow: pip install pyarrow (the extra parquet)") from None
        try:
            with parquet.ParquetFile(self.path) as file:
                for name in (self.inputs, self.labels):
                    if name not in file.schema_arrow.names:
                        raise DataError(f"{self.path}: no column {name!r} among {', '.join(file.schema_arrow.names)}")
                for batch in file.iter_batches(1024, columns=[self.inputs, self.labels]):
                    yield from zip(*(batch.column(n).to_pylist() for n in (self.inputs, self.labels)), strict=True)
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file") from None
        except (arrow.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: not Parquet, or damaged: {str(error).splitlines()[0]}") from None


def _numbers(cell: Any, where: str) -> np.ndarray:
    try:
        array = np.array(cell)
    except ValueError:
        array = np.array(None)
    if array.dtype.kind not in "iuf" or array.ndim < 2:
        raise DataError(f"{where}: neither an image file nor nested lists of numbers, all of one length")
    small = array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255
    return array.astype(np.uint8) if small else array


@config
class Digits:
    """1,797 handwritten digits of 8 x 8 pixels, included in scikit-learn."""

    def read(self) -> Iterator[LabelledArray]:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ConfigError("digits: need scikit-learn: pip install scikit-learn (the extra digits)") from None
        found: Any = load_digits()
        images = np.round(found.images * (255 / 16)).astype(np.uint8)  # pixel values are 0 to 16
        for i, (image, label) in enumerate(zip(images, found.target, strict=True)):
            yield _of_array(image, str(label), f"digit {i + 1}")


ArraySource = Annotated[ImageFolder | Arrays | ArrayTable | Digits, OneOf()]


def name_of(source: ArraySource) -> str:
    return "digits" if isinstance(source, Digits) else source.path


def read_arrays(source: ArraySource, known: Sequence[str] | None = None) -> list[LabelledArray]:
    """Read all examples of ``source``.

    Raises:
        DataError: a file that cannot be read or holds no example, or a label that is not ``known``.
    """
    examples = list(source.read())
    if not examples:
        raise DataError(f"{name_of(source)}: no labelled image or array in it")
    for example in examples:
        check_known(example.label, known, example.where)
    return examples


def guess_arrays(path: str) -> ArraySource:
    """Return the kind of source that ``path`` is by its name.

    Raises:
        ConfigError: the name does not identify it.
    """
    if Path(path).is_dir():
        return ImageFolder(path=path)
    match Path(path).suffix.lower():
        case ".npz":
            return Arrays(path=path)
        case ".parquet":
            return ArrayTable(path=path)
    raise ConfigError(f"{path}: its name does not identify it: name a folder of images, a .npz or a .parquet file")


# ---- a run's examples -----------------------------------------------------------------------------


@config
class LabelledArrays:
    """Images or float frames, depending on the model's inputs."""

    train: tuple[ArraySource, ...]
    """Sources of training examples, read one after the other."""
    valid: ArraySource | None = None
    """Examples that choose the best checkpoint; without it, some training examples are held out."""
    test: ArraySource | None = None
    """Examples used only for the final scores; without it, some training examples are held out."""
    hold_out: HoldOut = HoldOut(test=500, valid=500, near=None)
    """Number of training examples held out as test and validation set, where none is given above."""
    overlap: Overlapping = "drop"
    """Treatment of training examples that are the same as one of a given validation or test set."""
    longest: PositiveInt | None = None
    """Maximum number of frames read of an example; None for all."""
    other_sizes: Literal["refuse", "resize"] = "refuse"
    """Treatment of image files of another size than the model's."""

    def split(self) -> SplitExamples[LabelledArray]:
        """Read the examples and split them into training, validation and test set.

        Raises:
            DataError: a file that cannot be read, a label that no training example has, or too few examples.
            ConfigError: a hard set is asked for.
        """
        refuse_hard_set(self.hold_out)
        sources = self.train, self.valid, self.test
        found = split_labelled_examples(
            sources, read_arrays, lambda example: [example.label], self.hold_out, self.overlap
        )
        floats = _has_floats(chain(found.split.train, found.split.valid, found.split.test))
        return replace(found, facts={**found.facts, "numbers": "<f4" if floats else "|u1"})


def refuse_hard_set(held: HoldOut) -> None:
    """
    Raises:
        ConfigError: a hard set is asked for, which is found by the rare words of texts.
    """
    if held.hard:
        raise ConfigError("data.hold_out.hard: hard sets are for texts, not for images or frames: leave it out")


def _has_floats(examples: Iterable[LabelledArray]) -> bool:
    return any(isinstance(e.given, np.ndarray) and e.given.dtype.kind == "f" for e in examples)
