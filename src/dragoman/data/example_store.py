"""Interface between a task's examples, the rows of a store, and the batches that the task's loss takes.

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
    """Encoding of examples as rows of a store, and of rows as batches."""

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int | str]:
        """Value type of each column: see ``store.building``."""

    @abstractmethod
    def columns(self, examples: Sequence[Any]) -> dict[str, list[Any]]:
        """Return the rows of ``examples``, by column.

        Raises:
            DataError: an example cannot be read; the message begins with its location.
        """

    @abstractmethod
    def lengths(self, store: Store) -> Int[np.ndarray, "N 2"]:
        """Return the positions that the model computes for each row, on both sides, or twice the same for one side."""

    @abstractmethod
    def batch(self, store: Store, rows: Int[np.ndarray, " B"]) -> Any:
        """Return the tensors of these rows, with ``to(device)``."""

    def store(self, folder: Path, examples: Sequence[Any]) -> None:
        with create_store(folder, self.sizes) as store:
            for chunk in chunks(examples, CHUNK):
                store.write(**self.columns(chunk))


def one_sided_lengths(lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, "N 2"]:
    """Return lengths of rows with one side in the form that batches of pairs take."""
    return np.stack([lengths, lengths], axis=1)
