"""Batches of pairs of similar length: their rows are a function of (lengths, seed, step) and of nothing else.

So a run resumes at any step without knowing what was read before. Pairs are sorted by their longer side; that alone
decides where the order is split into batches, once for all epochs. Among pairs of the same longer side, those of
similar shorter side are neighbours, with a random jitter of a token, so that each epoch mixes them differently; and
each epoch has its own order of batches.

N pairs, B of them in a batch, S and T the longest source and target there.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt64
from torch import Tensor

from dragoman.errors import ConfigError, DataError
from dragoman.text.tokens.tokenizer import BOS, PAD


@runtime_checkable
class PairRows(Protocol):
    """Pairs of ids by row: what a batch is made of."""

    def __getitem__(self, i: int) -> tuple[Int[np.ndarray, "S"], Int[np.ndarray, "T"]]: ...

    def padded(self, rows: Int[np.ndarray, "B"]) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B T"]]: ...


class PairBatch(NamedTuple):
    """Pairs as padded tensors, one per row."""

    source: Int[Tensor, "B S"]
    target_in: Int[Tensor, "B T"]
    """Decoder input: bos, then the target without its eos."""
    target_out: Int[Tensor, "B T"]
    """Decoder targets: the target with its eos."""

    def to(self, device: torch.device | str) -> "PairBatch":
        return PairBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def collate(corpus: PairRows, rows: Int[np.ndarray, "B"]) -> PairBatch:
    """Return the pairs of these rows."""
    return as_batch(*corpus.padded(rows))


def as_batch(source: Int[np.ndarray, "B S"], target_out: Int[np.ndarray, "B T"]) -> PairBatch:
    """Return padded rows, each ending in eos, with the decoder input that predicts the target."""
    target_in = np.full_like(target_out, BOS)
    target_in[:, 1:] = np.where(target_out[:, 1:] == PAD, PAD, target_out[:, :-1])
    return PairBatch(*map(torch.from_numpy, (source, target_in, target_out)))


class Batches:
    """Batches of every step. A batch has at most ``tokens`` tokens on its larger side, padding included.

    A pair longer than that makes a batch of its own. Each pair comes exactly once per epoch. A step has ``accumulate``
    batches (the last one of an epoch has fewer where there are too few pairs to split); to make the count even, the
    largest batches are halved.
    """

    def __init__(self, lengths: Int[np.ndarray, "N 2"], tokens: int, seed: int, accumulate: int = 1):
        if tokens < 1 or accumulate < 1:
            raise ConfigError(f"batches of {tokens} tokens, {accumulate} a step: both must be 1 or more")
        if not len(lengths):
            raise DataError("data.train: no pairs to make batches of")
        self.lengths, self.seed, self.accumulate = lengths, seed, accumulate
        sizes = _even(list(sizes_within(tokens, np.sort(lengths.max(axis=1)))), accumulate)
        self.cuts = np.cumsum([0, *sizes])
        self.steps_per_epoch = math.ceil(len(sizes) / accumulate)
        self._epoch: tuple[int, list[np.ndarray]] | None = None

    def at(self, step: int) -> list[Int[np.ndarray, "B"]]:
        """Return the rows of each of the step's batches. Steps count from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._plan(epoch)
        return self._epoch[1][index * self.accumulate : (index + 1) * self.accumulate]

    @property
    def padding_share(self) -> float:
        """Fraction of all positions, source and target, that is padding. Measured on the first epoch."""
        return padding_share(self.lengths, self._plan(0))

    def _plan(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of every batch of an epoch, in batch order."""
        raw = np.random.PCG64([self.seed, epoch]).random_raw  # numpy promises that this stream stays what it is
        order = by_length(self.lengths, raw(len(self.lengths)))
        batches = [order[begin:end] for begin, end in pairwise(self.cuts)]
        return [batches[i] for i in np.argsort(raw(len(batches)), kind="stable")]


def padding_share(lengths: Int[np.ndarray, "N 2"], batches: Iterable[np.ndarray]) -> float:
    """Return the fraction of all positions of ``batches``, source and target, that is padding."""
    sizes = [(int(lengths[rows].sum()), len(rows) * int(lengths[rows].max(axis=0).sum())) for rows in batches]
    return 1 - sum(real for real, _ in sizes) / sum(cells for _, cells in sizes)


def by_length(lengths: Int[np.ndarray, "N 2"], noise: UInt64[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """Return an order in which neighbours have similar lengths on both sides; ``noise`` breaks ties."""
    larger, jitter = lengths.max(axis=1), noise / 2.0**63 - 1  # -1 to 1
    leaning = np.subtract(*lengths.T) + jitter
    # back and forth, so that a batch that spans two lengths has similar pairs at the boundary
    snake = np.where(larger % 2, leaning, -leaning)
    return np.lexsort((snake, larger))


def sizes_within(tokens: int, ascending: Int[np.ndarray, "N"]) -> Iterator[int]:
    """Yield the number of pairs in each batch: as many as fit, shortest first."""
    begin = 0
    while begin < len(ascending):
        window = ascending[begin : begin + max(1, tokens // int(ascending[begin]))]
        padded = window * np.arange(1, len(window) + 1)
        size = max(1, int(np.searchsorted(padded, tokens, side="right")))
        yield size
        begin += size


def _even(sizes: list[int], multiple: int) -> list[int]:
    """Return ``sizes`` with the largest halved until their number is a multiple of ``multiple``, or until all are 1."""
    while len(sizes) % multiple and max(sizes) > 1:
        halve_largest(sizes)
    return sizes


def halve_largest(sizes: list[int]) -> None:
    """Replace the largest of ``sizes`` by its two halves, in place."""
    at = sizes.index(max(sizes))
    sizes[at : at + 1] = [sizes[at] - sizes[at] // 2, sizes[at] // 2]
