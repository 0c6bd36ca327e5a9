"""Small images and time series with labels, each in several shapes in one file, so that unlike models read the same.

``x`` holds the images or the frames, ``flat`` each example as a single frame, and for images ``rows`` has its rows of
pixels as frames.
"""

import io
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from dragoman import durable
from dragoman.errors import ConfigError
from dragoman.presets import Plain


def digits(folder: Path, *, examples: Annotated[int, Field(ge=1, le=1795)] = 1400, seed: NonNegativeInt = 1) -> Plain:
    """Handwritten digits of 8 x 8 pixels from scikit-learn; 1,797 in all. Those that are not for training validate or
    test.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError("data: digits needs scikit-learn: pip install scikit-learn (the extra digits)") from None
    found: Any = load_digits()
    images = (found.images / 16 * 255).astype(np.uint8)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(images))
    frames = (images / 255).astype(np.float32)
    arrays = {"x": images, "rows": frames, "flat": frames.reshape(len(images), 1, -1), "y": found.target}
    held = (len(images) - examples) // 2
    rest = len(images) - examples  # odd or even: the test set has the last one
    return _stored(folder, arrays, {"valid": order[:held], "test": order[held:rest], "train": order[rest:]})


def series(
    folder: Path,
    *,
    length: PositiveInt = 48,
    horizon: PositiveInt = 6,
    noise: NonNegativeFloat = 0.4,
    examples: Annotated[int, Field(ge=5)] = 3000,
    seed: NonNegativeInt = 1,
) -> Plain:
    """Series with trend, season and noise. The label says whether the mean of the next ``horizon`` values is above the
    mean of the last as many: a forecast reduced to a yes or no."""
    rng = np.random.Generator(np.random.PCG64(seed))
    count, held = examples + 2 * (examples // 5), examples // 5
    time = np.arange(length + horizon)
    trend = rng.normal(0, 0.015, (count, 1)) * time
    period, phase = rng.integers(6, 16, (count, 1)), rng.uniform(0, 2 * np.pi, (count, 1))
    values = trend + np.sin(2 * np.pi * time / period + phase) + rng.normal(0, noise, (count, length + horizon))
    seen, later = values[:, :length], values[:, length:]
    labels = (later.mean(axis=1) > seen[:, -horizon:].mean(axis=1)).astype(np.int64)
    x = seen.astype(np.float32)
    arrays = {"x": x[..., None], "flat": x[:, None, :], "y": labels}
    rows = np.arange(count)
    return _stored(folder, arrays, {"valid": rows[:held], "test": rows[held : 2 * held], "train": rows[2 * held :]})


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """Return the arrays as numpy's savez stores them, but without the time: the same arrays are the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue())
    return content.getvalue()


def _stored(folder: Path, arrays: dict[str, np.ndarray], parts: dict[str, np.ndarray]) -> Plain:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        durable.replace(folder / f"{name}.npz", _npz({key: array[rows] for key, array in arrays.items()}))
    source = {name: {"kind": "arrays", "path": str(folder / f"{name}.npz")} for name in parts}
    return {
        "kind": "labelled_arrays",
        "train": [source["train"]],
        "valid": source["valid"],
        "test": source["test"],
        "overlap": "keep",
    }
