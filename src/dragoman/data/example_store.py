"""How the examples of a task lie in a store, and become the batches that its loss takes.

N rows of a store. One example may take several rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dragoman.text.store import Store, chunks, create_store

CHUNK = 1000
"""Examples in memory while they are encoded."""


class ExampleStore(ABC):
    @property
    @abstractmethod
    def sizes(self) -> dict[str, int | str]:
        """The columns: see ``store.building``."""

    @abstractmethod
    def columns(self, examples: Sequence[Any]) -> dict[str, list[Any]]:
        """Their rows.

        Raises:
            DataError: an example that cannot be read; the message opens with its place.
        """

    @abstractmethod
    def lengths(self, store: Store) -> Int[np.ndarray, "N 2"]:
        """Positions that the model computes for each row, on either side where there are two, else twice the same."""

    @abstractmethod
    def batch(self, store: Store, rows: Int[np.ndarray, " B"]) -> Any:
        """Tensors, with ``to(device)``."""

    def store(self, folder: Path, examples: Sequence[Any]) -> None:
        with create_store(folder, self.sizes) as store:
            for chunk in chunks(examples, CHUNK):
                store.write(**self.columns(chunk))


def one_sided_lengths(lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, "N 2"]:
    """Lengths of rows with one side, as batches of pairs want them."""
    return np.stack([lengths, lengths], axis=1)
