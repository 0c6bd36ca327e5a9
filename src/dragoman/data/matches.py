"""Matching pairs as tensors, and the retrieval scores of each item's partners among all.

N pairs, B of them in a batch, F distinct first and S distinct second items.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.data.arrays import digest
from dragoman.data.captions import CaptionedImage, read_captions
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


def stored_captions(data: Path, name: str, materials: dict[str, Material]) -> list[CaptionedImage]:
    """Return the images and captions that a run holds out under ``name``.

    Raises:
        DataError: they are gone or damaged.
    """
    columns, path = Store.open(data / name).columns, data / f"{name}.jsonl"
    (image, images), (text, texts) = sorted(materials.items(), key=lambda one: not isinstance(one[1], ImageMaterial))
    assert isinstance(images, ImageMaterial), "one tower reads images"
    if path.is_file():
        return read_captions(path, columns[image], images)
    rows = ((columns[image].raw_row(i), columns[text].raw_row(i)) for i in range(len(columns[image])))
    return [  # earlier versions kept captions as their tower reads them
        CaptionedImage(images.restored(row), texts.restored(ids), f"{name} pair {i}", digest(row.tobytes()))
        for i, (row, ids) in enumerate(rows, 1)
    ]


# ---- retrieval ------------------------------------------------------------------------------------


class DistinctItems(NamedTuple):
    """Distinct items of pairs: an image may have several captions, and several images the same caption."""

    first: Int[np.ndarray, " F"]
    """Index of the first pair with each first item."""
    second: Int[np.ndarray, " S"]
    """Index of the first pair with each second item."""
    partners: Bool[np.ndarray, "F S"]
    """True where the two items are a pair."""


def distinct_items(examples: Sequence[Pair | CaptionedImage], materials: dict[str, Material]) -> DistinctItems:
    """Return the distinct items of pairs. Texts are the same to the letter, images to the byte."""
    (first, row), (second, column) = (
        _numbered([_identity(example, name, material) for example in examples]) for name, material in materials.items()
    )
    partners = np.zeros((len(first), len(second)), bool)
    partners[row, column] = True
    return DistinctItems(first, second, partners)


def _identity(example: Pair | CaptionedImage, name: str, material: Material) -> str:
    if isinstance(example, CaptionedImage) and isinstance(material, ImageMaterial):
        return example.target
    return side(example, name, material)


def _numbered(keys: Sequence[str]) -> tuple[Int[np.ndarray, " F"], Int[np.ndarray, " N"]]:
    """Return the index of each distinct key's first appearance, and the number of each key among the distinct ones."""
    numbers: dict[str, int] = {}
    number = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    return np.unique(number, return_index=True)[1], number


def ranks(similarity: Float[np.ndarray, "F S"], partners: Bool[np.ndarray, "F S"]) -> Int[np.ndarray, " F"]:
    """Return the rank, counted from 1, of each row's most similar partner, as of images with several captions in COCO.

    Its other partners do not count. What is as similar ranks before the partner, and so does what is no number: giving
    everything the same similarity gains nothing.
    """
    best = np.where(partners, similarity, -np.inf).max(axis=1, keepdims=True)
    return 1 + (~(similarity < best) & ~partners).sum(axis=1)


def recall(found: Int[np.ndarray, " F"], within: int) -> float:
    """Return the fraction of partners with a rank of at most ``within``."""
    return float((found <= within).mean())


def mean_reciprocal_rank(found: Int[np.ndarray, " F"]) -> float:
    return float((1 / found).mean())
