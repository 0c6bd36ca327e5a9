"""Padding: rows of ids of any lengths as one rectangle.

B rows, T length of the longest.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.text.tokens.tokenizer import PAD


def padded(
    rows: Sequence[Sequence[int]] | Sequence[np.ndarray], device: torch.device | None = None, value: int = PAD
) -> Int[Tensor, "B T"]:
    """Return the rows as one tensor, padded behind with ``value``; by default on the CPU."""
    return torch.from_numpy(padded_array(rows, value)).to(device)


def padded_array(rows: Sequence[Sequence[int]] | Sequence[np.ndarray], value: int = PAD) -> Int[np.ndarray, "B T"]:
    """Return the rows as one array, padded behind with ``value``."""
    ids = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for row, given in zip(ids, rows, strict=True):
        row[: len(given)] = given
    return ids
