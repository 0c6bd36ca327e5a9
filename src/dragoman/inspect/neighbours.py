"""Nearest training pairs of sentences: by n-grams of their tokens, and by the model's own encoder.

N training pairs, Q sentences, G different n-grams of these, S tokens, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from dragoman.inspect.places import places
from dragoman.inspect.subject import Subject
from dragoman.inspect.trace import watching
from dragoman.text.store import Column
from dragoman.text.tokens.tokenizer import BOS, PAD

LONGEST = 4
"""Longest n-grams that are compared, in tokens."""
CHUNK = 20_000
"""Training pairs at a time."""
LEAST = 0.01
"""Smallest part of a sentence's n-grams that makes a pair near; the end of the text alone does not."""
BATCH = 64
"""Sources that are encoded at a time."""
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Neighbour:
    """Training pair that is near a sentence."""

    row: int
    """Number of the pair in the run's training text, counted from 0."""
    nearness: float
    """By n-grams the part of the sentence's n-grams that the pair has, weighted by rarity; by the encoder the
    cosine."""


# ---- n-grams ------------------------------------------------------------------------------------------


def nearest_by_ngrams(column: Column, queries: Sequence[Sequence[int]], count: int) -> list[list[Neighbour]]:
    """Return the rows with the most n-grams of each query, the nearest first.

    An n-gram of up to ``LONGEST`` tokens weighs the logarithm of how rare it is among the rows. Two passes over the
    rows; memory does not grow with their number.
    """
    grams = _Grams(queries)
    rarity = np.zeros(grams.count)
    for _, _, gram, _ in _hits(column, grams):
        rarity += np.bincount(gram, minlength=grams.count)
    weights = np.log((len(column) + 1) / (rarity + 1)) + 1e-6
    whole = np.bincount(grams.of_query, weights=weights[grams.of_gram], minlength=len(queries))
    best: list[list[Neighbour]] = [[] for _ in queries]

    def near_first(one: Neighbour) -> tuple[float, int, int]:
        return -one.nearness, int(column.lengths[one.row]), one.row

    for start, size, gram, row in _hits(column, grams):
        scores = grams.summed(gram, row, size, weights) / np.maximum(whole, 1e-9)[:, None]
        lengths = column.lengths[start : start + size]
        for query, line in enumerate(scores):
            top = np.lexsort((lengths, -line))[:count]  # of equally near ones the shorter first
            found = [Neighbour(start + int(i), float(line[i])) for i in top if line[i] >= LEAST]
            best[query] = sorted([*best[query], *found], key=near_first)[:count]
    return best


class _Grams:
    """Different n-grams of some sentences, as hashes, and which sentence has which."""

    def __init__(self, queries: Sequence[Sequence[int]]):
        pairs: list[tuple[int, int]] = []
        self.hashes: list[np.ndarray] = []
        self.first: list[int] = []
        count = 0
        for n in range(1, LONGEST + 1):
            mine = [(query, value) for query, ids in enumerate(queries) for value in set(_rolled(ids, n).tolist())]
            hashes = np.unique(np.array([value for _, value in mine], np.uint64))
            pairs += [(count + int(np.searchsorted(hashes, np.uint64(value))), query) for query, value in mine]
            self.hashes.append(hashes)
            self.first.append(count)
            count += len(hashes)
        self.count, self.queries = count, len(queries)
        ordered = np.array(sorted(pairs), np.int64).reshape(-1, 2)
        self.of_gram, self.of_query = ordered[:, 0], ordered[:, 1]
        self.starts = np.searchsorted(self.of_gram, np.arange(count + 1))

    def summed(
        self, gram: Int[np.ndarray, " hits"], row: Int[np.ndarray, " hits"], rows: int, weights: Float[np.ndarray, " G"]
    ) -> Float[np.ndarray, "Q rows"]:
        """Return the weight of the n-grams that each sentence shares with each row."""
        times = self.starts[gram + 1] - self.starts[gram]
        offsets = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        query = self.of_query[np.repeat(self.starts[gram], times) + offsets]
        cells = query * rows + np.repeat(row, times)
        summed = np.bincount(cells, weights=np.repeat(weights[gram], times), minlength=self.queries * rows)
        return summed.reshape(self.queries, rows)


def _rolled(ids: Sequence[int] | np.ndarray, n: int) -> Int[np.ndarray, " T"]:
    """Return a hash of each n-gram of ids."""
    row = np.asarray(ids).astype(np.uint64) + np.uint64(1)
    size = max(0, len(row) - n + 1)
    value = np.zeros(size, np.uint64)
    for k in range(n):
        value = value * _BASE + row[k : k + size]  # wraps around, as hashes may
    return value


def _hits(column: Column, grams: _Grams) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield chunks of rows: the first row, their number, and the different pairs (n-gram, row within the chunk)."""
    for start in range(0, len(column), CHUNK):
        end = min(start + CHUNK, len(column))
        ids = np.asarray(column.ids[column.starts[start] : column.starts[end]])
        rows = np.repeat(np.arange(end - start), column.lengths[start:end])
        pairs: list[np.ndarray] = []
        for n, (hashes, first) in enumerate(zip(grams.hashes, grams.first, strict=True), 1):
            if not len(hashes) or len(ids) < n:
                continue
            value = _rolled(ids, n)
            place = np.minimum(np.searchsorted(hashes, value), len(hashes) - 1)
            within = rows[: len(value)] == rows[n - 1 : n - 1 + len(value)]  # an n-gram ends in the row it begins in
            hit = np.flatnonzero((hashes[place] == value) & within)
            pairs.append(np.unique((first + place[hit]).astype(np.int64) * (end - start) + rows[hit]))
        found = np.concatenate(pairs) if pairs else np.zeros(0, np.int64)
        yield start, end - start, found // (end - start), found % (end - start)


# ---- the model's encoder ------------------------------------------------------------------------------


def nearest_by_encoder(
    subject: Subject,
    column: Column,
    queries: Sequence[Sequence[int]],
    count: int,
    *,
    most: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Neighbour]]:
    """Return the rows whose mean encoder output is nearest to that of each query, by cosine.

    Args:
        most: largest number of rows that are encoded; of more, these are taken at equal distances.

    Returns empty lists for a model whose decoder reads no encoder output.
    """
    if "encoder.output" not in places(subject.model):
        return [[] for _ in queries]
    rows = np.unique(np.linspace(0, len(column) - 1, min(most, len(column))).astype(np.int64))
    goal = encoded(subject, [list(ids) for ids in queries])
    nearness = np.zeros((len(queries), len(rows)), np.float32)
    order = rows[np.argsort(column.lengths[rows], kind="stable")]
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        vectors = encoded(subject, [column[int(row)].tolist() for row in part])
        nearness[:, start : start + len(part)] = goal @ vectors.T
        if progress:
            progress(min(start + BATCH, len(order)), len(order))
    tops = np.argsort(-nearness, axis=1, kind="stable")[:, :count]
    return [[Neighbour(int(order[i]), float(line[i])) for i in top] for line, top in zip(nearness, tops, strict=True)]


@torch.inference_mode()
def encoded(subject: Subject, rows: Sequence[Sequence[int]]) -> Float[np.ndarray, "B D"]:
    """Return the mean encoder output of each source, at length 1."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), PAD)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    ids = ids.to(subject.device)
    real = (ids != PAD)[..., None]
    begin = torch.full((len(rows), 1), BOS, device=subject.device)
    with watching(subject.model, "encoder.output") as record:
        subject.model.eval()(begin, ids)
    output = record["encoder.output"].float()
    mean = (output * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
