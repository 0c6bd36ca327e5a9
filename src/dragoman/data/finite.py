"""Conversion of numbers that are given to float32, in which every number must be finite."""

from collections.abc import Sequence

import numpy as np

from dragoman.errors import DataError


def finite_float32(array: np.ndarray, place: str, axes: Sequence[str]) -> np.ndarray:
    """Return ``array`` in float32.

    Args:
        array: numbers of any shape.
        place: location of the array for error messages.
        axes: what each dimension counts, such as ``frame`` and ``channel``.

    Raises:
        DataError: a number that is NaN or infinite, or that float32 cannot hold.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is named below
        values = np.asarray(array, np.float32)
    if np.isfinite(values).all():
        return values
    index = tuple(np.argwhere(~np.isfinite(values))[0])
    where = ", ".join(f"{axis} {i + 1}" for axis, i in zip(axes, index, strict=True))
    number = array[index]
    fault = "more than float32 holds: scale it" if np.isfinite(number) else "no finite number: fill or remove it"
    raise DataError(f"{place}: {where} is {number:g}, {fault}")
