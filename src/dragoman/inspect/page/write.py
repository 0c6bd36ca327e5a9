"""Writing of a page: one HTML file without anything from elsewhere, or its data as JSON, or a figure.

Weights of all heads are stored as bytes, 256 steps from 0 to the largest, since a screen shows no more; attributions
and other single maps have two bytes.
"""

import base64
import html
import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from dragoman.errors import DataError
from dragoman.inspect.page.collect import PageData
from dragoman.inspect.page.figure import figure_png, figure_svg
from dragoman.output_file import open_output

LARGEST = 24 * 2**20
"""Most bytes of a page; browsers become slow beyond."""


def as_html(data: PageData) -> bytes:
    """Return the page.

    Raises:
        DataError: a page that would be too large; the message says what to narrow.
    """
    frame = Template(files("dragoman.inspect.page").joinpath("page.html").read_text(encoding="utf-8"))
    shown = json.dumps(_packed(data), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    title = html.escape(f"{data['run']}: {data['input']}"[:120].strip(": ") or "a look inside")
    page = frame.substitute(title=title, data=shown).encode()
    if len(page) > LARGEST:
        raise DataError(
            f"page: {len(page) / 2**20:.0f} MB, and browsers take {LARGEST // 2**20} MB: choose fewer --layers or "
            "--heads, or a shorter text"
        )
    return page


def as_json(data: PageData) -> bytes:
    """Return the data with every number, rounded to six digits."""
    return (json.dumps(_plain(data), ensure_ascii=False, indent=1) + "\n").encode()


def _packed(value: Any) -> Any:
    """Return the data with arrays of two or more dimensions as bytes, and all others as rounded numbers."""
    if isinstance(value, np.ndarray):
        if value.ndim >= 2:
            return _bytes(value)
        return [_rounded(x) for x in value.tolist()]
    if isinstance(value, dict):
        return {str(name): _packed(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(part) for part in value]
    return _rounded(value) if isinstance(value, float) else value


def _bytes(array: np.ndarray) -> PageData:
    """Return an array as one or two bytes a number: value = low + step * stored. Zero is stored exactly."""
    if array.dtype == np.uint8:
        low, step, stored = 0.0, 1.0, array
    else:
        clean = np.nan_to_num(array.astype(np.float64))
        most = max(float(np.abs(clean).max(initial=0)), 1e-12)
        half = 127 if array.ndim > 2 else 32767
        low, step = (-most, most / half) if clean.min(initial=0) < 0 else (0.0, most / (2 * half + 1))
        stored = ((clean - low) / step).round().astype(np.uint8 if array.ndim > 2 else "<u2")
    packed = base64.b64encode(stored.tobytes()).decode()
    return {"shape": array.shape, "size": stored.itemsize, "low": low, "step": step, "bytes": packed}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return _rounded(value) if isinstance(value, float) else value


def _rounded(x: Any) -> Any:
    return float(f"{x:.6g}") if isinstance(x, float) and np.isfinite(x) else None if isinstance(x, float) else x


def write_page(path: Path, data: PageData) -> None:
    """Write the page in the format of the file's ending.

    Raises:
        ConfigError: an image where the library for it is missing.
        DataError: a page that would be too large.
        OutputError: a file that cannot be written.
    """
    kind = path.suffix.lower()
    if kind == ".html":
        content = as_html(data)
    elif kind == ".json":
        content = as_json(data)
    else:
        content = figure_svg(data) if kind == ".svg" else figure_png(data)
    with open_output(path) as out:
        out.write(content)
