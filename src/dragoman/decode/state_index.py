"""Approximate search in a datastore of states: an inverted file of clusters (faiss), written beside the states.

A query visits the nearest clusters alone, and the distances to their states are computed as exact search does. So a
large datastore is not read whole at each step.

N states of width D, R queries, k neighbours.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dragoman import durable
from dragoman.errors import ConfigError, DataError
from dragoman.text.vector_index import cluster_count, required_library, visited

FILE = "states.faiss"
"""File of the index, in the folder of the datastore."""
CHUNK = 1 << 16
"""States that are added at a time."""
LEARNT = 64
"""States for each cluster that its centre is learnt from."""


def build_state_index(folder: Path, keys: Float[np.ndarray, "N D"]) -> None:
    """Write the index of a datastore's states. It is built in memory: 2 bytes for each unit of the width of a state.

    Raises:
        ConfigError: the library is missing.
        DataError: the file cannot be written.
    """
    library = required_library()
    size, width = keys.shape
    clusters = cluster_count(size)
    index = library.IndexIVFScalarQuantizer(
        library.IndexFlatL2(width), width, clusters, library.ScalarQuantizer.QT_fp16, library.METRIC_L2
    )
    index.cp.min_points_per_centroid = 1  # the library would print a warning for a small datastore
    index.by_residual = False  # numbers in float16 stay exactly what they are
    rows = np.unique(np.linspace(0, size - 1, min(size, LEARNT * clusters)).astype(np.int64))
    index.train(np.array(keys[rows], np.float32))
    for start in range(0, size, CHUNK):
        index.add(np.array(keys[start : start + CHUNK], np.float32))
    try:
        durable.replace_with(folder / FILE, lambda path: library.write_index(index, str(path)))
    except (OSError, RuntimeError) as error:
        raise DataError(f"{folder / FILE}: cannot be written: {error}") from None


class StateIndex:
    """Index of N states, mapped into memory."""

    def __init__(self, folder: Path, size: int, width: int):
        """
        Args:
            size, width: N and D of the datastore.

        Raises:
            ConfigError: the library is missing, or the datastore was built without an index.
            DataError: the index is damaged, or of other states.
        """
        library, path = required_library(), folder / FILE
        if not path.exists():
            raise ConfigError(
                f"{folder}: has no index for approximate search: build it again with `dragoman datastore ... --index`, "
                "or search it exactly"
            )
        try:
            self.index: Any = library.read_index(str(path), library.IO_FLAG_MMAP | library.IO_FLAG_READ_ONLY)
        except RuntimeError:
            raise DataError(f"{path}: damaged: build the datastore again") from None
        if (self.index.ntotal, self.index.d) != (size, width):
            raise DataError(f"{path}: is of other states than the datastore: build it again")
        self.index.nprobe = visited(self.index.nlist)

    def nearest(
        self, queries: Float[np.ndarray, "R D"], k: int
    ) -> tuple[Float[np.ndarray, "R k"], Int[np.ndarray, "R k"]]:
        """Return squared distances and rows of states that are near; infinity and 0 where the clusters have fewer."""
        distances, rows = self.index.search(np.ascontiguousarray(queries, np.float32), k)
        return np.where(rows < 0, np.inf, distances).astype(np.float32), np.maximum(rows, 0)
