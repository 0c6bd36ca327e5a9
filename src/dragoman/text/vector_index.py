"""Index of vectors: the nearest ones by cosine, in a library where it is installed (faiss), else in numpy.

Exact search has the same answers either way. The library, or a product of float32 matrices, finds a few more vectors
than are asked for. Their cosines are then computed anew in float64, each by itself, and decide. So they do not
depend on other queries or on the library.

N vectors of width D, Q queries, k nearest.
"""

import logging
import warnings
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dragoman.errors import ConfigError

MARGIN = 8
"""Vectors found beyond those that are asked for, among which exact cosines decide."""
QUERIES, ROWS = 256, 1 << 16
"""Queries, and rows in numpy, that are searched at a time."""
FEW = 50_000
"""Up to this number of vectors, approximate search would gain little, and is exact."""
VISITED = 1 / 16
"""Fraction of the clusters that approximate search visits."""
PRODUCTS = 20
"""Queries from which the library computes products of matrices, which are a multiple faster. This was its own default
for long; in 1.15.1 that is 128,000."""
_PER_CLUSTER = 39
"""Fewest vectors that the library wants to learn a cluster from."""

log = logging.getLogger(__name__)


class VectorIndex:
    """Index of N vectors of length 1."""

    def __init__(self, vectors: Float[np.ndarray, "N D"], *, approximate: bool = False):
        """
        Args:
            approximate: search only the clusters that are nearest to a query, where there are many vectors. An
                inverted file and no graph of neighbours: that one depends on the order in which threads build it.

        Raises:
            ConfigError: approximate search without the library.
        """
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        library = required_library() if approximate else load_library()
        self.exact = not approximate or len(vectors) <= FEW
        """True where the nearest vectors are found for certain."""
        self.index = library and _build(library, self.vectors, exact=self.exact)
        how = "exactly" if self.exact else "approximately"
        log.info("%s searches %d vectors %s", "faiss" if library else "numpy", len(vectors), how)

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(
        self, queries: Float[np.ndarray, "Q D"], count: int | None
    ) -> list[tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]]:
        """Return for each query the rows of the ``count`` nearest vectors, and their cosines, the nearest first,
        earlier rows first among equals.

        Args:
            queries: vectors of length 1.
            count: None for all.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        size = len(self) if count is None else min(count, len(self))
        found = []
        for start in range(0, len(queries), QUERIES):
            some = queries[start : start + QUERIES]
            for query, rows in zip(some, self._rows(some, min(size + MARGIN, len(self))), strict=True):
                rows = rows[rows >= 0]  # the library fills up with -1
                cosines = (self.vectors[rows].astype(np.float64) * query).sum(axis=1)
                order = np.lexsort((rows, -cosines))[:size]
                found.append((rows[order], cosines[order]))
        return found

    def _rows(self, queries: Float[np.ndarray, "Q D"], count: int) -> Int[np.ndarray, "Q count"]:
        if not count:
            return np.empty((len(queries), 0), np.int64)
        return _search(self.vectors, queries, count) if self.index is None else self.index.search(queries, count)[1]


def _search(vectors: Float[np.ndarray, "N D"], queries: Float[np.ndarray, "Q D"], count: int) -> np.ndarray:
    """Return the rows with the greatest products, in no order."""
    best, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), ROWS):
        products = queries @ vectors[start : start + ROWS].T
        here = _greatest(products, count)
        best = np.concatenate([best, np.take_along_axis(products, here, axis=1)], axis=1)
        rows = np.concatenate([rows, here + start], axis=1)
        chosen = _greatest(best, count)
        best, rows = (np.take_along_axis(numbers, chosen, axis=1) for numbers in (best, rows))
    return rows


def _greatest(numbers: Float[np.ndarray, "Q n"], count: int) -> Int[np.ndarray, "Q k"]:
    """Return the columns of the ``count`` greatest numbers of each row, in no order; all where there are fewer."""
    if numbers.shape[1] <= count:
        return np.broadcast_to(np.arange(numbers.shape[1]), numbers.shape)
    return np.argpartition(numbers, -count, axis=1)[:, -count:]


def _build(library: Any, vectors: Float[np.ndarray, "N D"], *, exact: bool) -> Any:
    """Return the library's index of these vectors."""
    width = vectors.shape[1]
    flat = library.IndexFlatIP(width)
    if exact:
        flat.add(vectors)
        return flat
    clusters = cluster_count(len(vectors))
    index = library.IndexIVFFlat(flat, width, clusters, library.METRIC_INNER_PRODUCT)
    index.cp.spherical = True  # centres of length 1, as the vectors
    index.train(vectors)
    index.add(vectors)
    index.nprobe = visited(clusters)
    return index


def cluster_count(size: int) -> int:
    """Return the number of clusters that this many vectors are divided into."""
    return max(1, min(int(4 * size**0.5), size // _PER_CLUSTER))


def visited(clusters: int) -> int:
    """Return the number of clusters that approximate search visits."""
    return max(1, int(clusters * VISITED))


def load_library() -> Any:
    """Return faiss; None where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the program that made its wrappers, on new Pythons
        try:
            library: Any = import_module("faiss")
        except ImportError:
            return None
    library.cvar.distance_compute_blas_threshold = PRODUCTS
    return library


def required_library(where: str = "") -> Any:
    """Return faiss.

    Args:
        where: beginning of the message: what asks for it.

    Raises:
        ConfigError: it is not installed.
    """
    library = load_library()
    if library is None:
        raise ConfigError(f"{where}approximate search needs faiss: pip install faiss-cpu (the extra retrieval)")
    return library
