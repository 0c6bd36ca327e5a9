"""Texts and their labels as tensors, and how well labels that were guessed agree with those that are true.

N examples, B of them in a batch, T the longest there, K labels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.text.store import Store
from dragoman.text.tokenizer import BOS, EOS, PAD, Tokenizer


class LabelledBatch(NamedTuple):
    ids: Int[Tensor, "B T"]
    """From bos to eos, then padding."""
    labels: Int[Tensor, " B"]

    def to(self, device: torch.device | str) -> "LabelledBatch":
        return LabelledBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def encode(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> list[list[int]]:
    """Each text from bos to eos, at most ``longest`` ids of it."""
    return [[BOS, *ids[: longest - 2], EOS] for ids in tokenizer.encode_batch(texts)]


def padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "B T"]:
    ids = torch.full((len(rows), max(map(len, rows))), PAD)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids


def collate(store: Store, rows: Int[np.ndarray, "B"]) -> LabelledBatch:
    """The examples of these rows of a store with the columns text and label."""
    text, label = store.columns["text"], store.columns["label"]
    return LabelledBatch(torch.from_numpy(text.padded(rows)), torch.from_numpy(label.padded(rows)[:, 0]))


# ---- agreement ------------------------------------------------------------------------------------


def confusion(true: Int[np.ndarray, "N"], guessed: Int[np.ndarray, "N"], labels: int) -> Int[np.ndarray, "K K"]:
    """How often each label (row) was taken for each (column)."""
    return np.bincount(true * labels + guessed, minlength=labels * labels).reshape(labels, labels)


def accuracy(matrix: Int[np.ndarray, "K K"]) -> float:
    """Share of labels that are right."""
    return float(np.trace(matrix) / max(matrix.sum(), 1))


def f1(right: Float[np.ndarray, "K"], guessed: Float[np.ndarray, "K"], true: Float[np.ndarray, "K"]) -> np.ndarray:
    """The harmonic mean of precision and recall of each label; not a number for labels that never occur."""
    with np.errstate(invalid="ignore"):
        return 2 * right / (guessed + true)


def macro_f1(matrix: Int[np.ndarray, "K K"]) -> float:
    """The mean over labels that occur, be it in truth or as a guess."""
    return float(
        np.nanmean(f1(matrix.diagonal().astype(float), matrix.sum(0).astype(float), matrix.sum(1).astype(float)))
    )
