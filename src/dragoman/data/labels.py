"""Labelled examples as tensors, and agreement between predicted and true labels.

N examples, B of them in a batch, T the longest there, K labels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.data.example_store import ExampleStore, one_sided_lengths
from dragoman.data.material import Material, to_device
from dragoman.model.positions.tokens import Frames
from dragoman.text.store import Store


class LabelledBatch(NamedTuple):
    """Model inputs and their labels."""

    inputs: Tensor | Frames
    """Ids, images or frames."""
    labels: Int[Tensor, " B"]

    def to(self, device: torch.device | str) -> "LabelledBatch":
        return LabelledBatch(to_device(self.inputs, device), self.labels.to(device, non_blocking=True))


class LabelledExamples(ExampleStore):
    """Store of examples with ``given``, ``label`` and ``where``: a column of model inputs and one of labels."""

    def __init__(self, material: Material, labels: Sequence[str]):
        self.material, self.labels = material, list(labels)
        self.index = {label: i for i, label in enumerate(self.labels)}

    @property
    def sizes(self) -> dict[str, int | str]:
        return {"given": self.material.numbers, "label": len(self.labels)}

    def columns(self, examples: Sequence[Any]) -> dict[str, list[Any]]:
        given = self.material.rows([e.given for e in examples], [e.where for e in examples])
        return {"given": given, "label": [[self.index[e.label]] for e in examples]}

    def lengths(self, store: Store) -> Int[np.ndarray, "N 2"]:
        return one_sided_lengths(self.material.positions(store.columns["given"].lengths))

    def batch(self, store: Store, rows: Int[np.ndarray, " B"]) -> LabelledBatch:
        given = self.material.collate([store.columns["given"].raw_row(int(i)) for i in rows])
        return LabelledBatch(given, torch.from_numpy(true_labels(store, rows)))


def true_labels(store: Store, rows: Int[np.ndarray, " B"] | None = None) -> Int[np.ndarray, " B"]:
    """Return the labels of these rows, by default of all."""
    ids = store.columns["label"].ids
    return np.asarray(ids if rows is None else ids[rows], np.int64)


# ---- agreement ------------------------------------------------------------------------------------


def confusion(true: Int[np.ndarray, "N"], guessed: Int[np.ndarray, "N"], labels: int) -> Int[np.ndarray, "K K"]:
    """Return how often each label (row) was predicted as each label (column)."""
    return np.bincount(true * labels + guessed, minlength=labels * labels).reshape(labels, labels)


def accuracy(matrix: Int[np.ndarray, "K K"]) -> float:
    """Return the fraction of labels that are right."""
    return float(np.trace(matrix) / max(matrix.sum(), 1))


def f1(right: Float[np.ndarray, "K"], guessed: Float[np.ndarray, "K"], true: Float[np.ndarray, "K"]) -> np.ndarray:
    """Return the F1 of each label; not a number for labels that never occur."""
    with np.errstate(invalid="ignore"):
        return 2 * right / (guessed + true)


def macro_f1(matrix: Int[np.ndarray, "K K"]) -> float:
    """Return the mean F1 over the labels that occur, as true or predicted label."""
    return float(
        np.nanmean(f1(matrix.diagonal().astype(float), matrix.sum(0).astype(float), matrix.sum(1).astype(float)))
    )
