"""Matching pairs as tensors, and the retrieval scores of each item's partner among all.

N pairs, B of them in a batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.data.captions import CaptionedImage
from dragoman.data.example_store import ExampleStore
from dragoman.data.material import ImageMaterial, Material, to_device
from dragoman.model.positions.tokens import Frames
from dragoman.text.lines import Pair
from dragoman.text.store import Store


class MatchedBatch(NamedTuple):
    """Inputs of two towers."""

    first: Tensor | Frames
    second: Tensor | Frames
    """Second items: row i belongs to row i of ``first``."""

    def to(self, device: torch.device | str) -> "MatchedBatch":
        return MatchedBatch(to_device(self.first, device), to_device(self.second, device))


class MatchedExamples(ExampleStore):
    """Store of pairs of texts, or of texts with images: a column for each tower."""

    def __init__(self, first: Material, second: Material):
        self.materials = {"first": first, "second": second}

    @property
    def sizes(self) -> dict[str, int | str]:
        return {name: material.numbers for name, material in self.materials.items()}

    def columns(self, examples: Sequence[Pair | CaptionedImage]) -> dict[str, list[Any]]:
        return {
            name: material.rows([side(example, name, material) for example in examples], list(map(place, examples)))
            for name, material in self.materials.items()
        }

    def lengths(self, store: Store) -> Int[np.ndarray, "N 2"]:
        sides = (material.positions(store.columns[name].lengths) for name, material in self.materials.items())
        return np.stack(list(sides), axis=1)

    def batch(self, store: Store, rows: Int[np.ndarray, " B"]) -> MatchedBatch:
        return MatchedBatch(
            *(
                material.collate([store.columns[name].raw_row(int(i)) for i in rows])
                for name, material in self.materials.items()
            )
        )


def side(example: Pair | CaptionedImage, name: str, material: Material) -> Any:
    """Return the input of the named tower: source or target of two texts, else the image or the caption."""
    if isinstance(example, Pair):
        return example.source if name == "first" else example.target
    return example.image if isinstance(material, ImageMaterial) else example.caption


def place(example: Pair | CaptionedImage) -> str:
    """Return the location of the example for error messages."""
    return repr(example.source[:60]) if isinstance(example, Pair) else example.where


def ranks(similarity: Float[np.ndarray, "N N"]) -> Int[np.ndarray, " N"]:
    """Return the rank, counted from 1, of each row's partner, the column of the same number. Ties rank before the
    partner: giving everything the same similarity gains nothing."""
    return (similarity >= similarity.diagonal()[:, None]).sum(axis=1)


def recall(found: Int[np.ndarray, " N"], within: int) -> float:
    """Return the fraction of partners with a rank of at most ``within``."""
    return float((found <= within).mean())


def mean_reciprocal_rank(found: Int[np.ndarray, " N"]) -> float:
    return float((1 / found).mean())
