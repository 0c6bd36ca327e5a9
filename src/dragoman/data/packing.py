"""Packing of text into rows for a language model: the pieces of documents in a row are a function of (seed, step)
alone.

The text is one stream of ids, document after document, each from bos to eos. A piece of n tokens starts at ``begin``;
the target of each token is the one that follows it. Either a row is packed with whole documents and parts of long ones,
which do not attend to each other (``Packed``), or it is a stretch of the stream (``Stretches``). Every token is learned
from once per epoch, except for less than two rows of a stretched stream, at its ends.

N pieces or documents, R rows of an epoch, B rows of a batch, T length of a row, P pieces of a row.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.errors import DataError
from dragoman.text.store import Column

IGNORE = -1
"""Target id where nothing is learned."""

PackedRow = Int[np.ndarray, "_ 2"]
"""P pieces of a row: where each piece begins in the stream, and its length."""


class TextBatch(NamedTuple):
    """Rows of text as tensors."""

    ids: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    """Id that follows each token; ``IGNORE`` where there is none, or none to be learned."""
    segment: Int[Tensor, "B T"] | None
    """Index of the piece within the row; None where each row is one piece."""

    def to(self, device: torch.device | str) -> "TextBatch":
        return TextBatch(*(None if t is None else t.to(device, non_blocking=True) for t in self))  # pyright: ignore[reportArgumentType]


def collate(text: Column, rows: Sequence[PackedRow], counted: Column | None = None) -> TextBatch:
    """Return the pieces of these rows as tensors. ``counted`` is 1 for the ids of ``text`` that are learned, else 0."""
    T = max(int(row[:, 1].sum()) for row in rows)
    packed = any(len(row) > 1 for row in rows)
    ids, targets = np.zeros((len(rows), T), np.int64), np.full((len(rows), T), IGNORE, np.int64)
    segment = np.zeros_like(ids)
    for b, row in enumerate(rows):
        at = 0
        for number, (begin, length) in enumerate(row):
            ids[b, at : at + length] = text.ids[begin : begin + length]
            answer = text.ids[begin + 1 : begin + length + 1].astype(np.int64)
            if counted is not None:
                answer = np.where(counted.ids[begin + 1 : begin + length + 1] == 1, answer, IGNORE)
            targets[b, at : at + length] = answer
            segment[b, at : at + length] = number
            at += length
        segment[b, at:] = len(row)  # padding is a segment of its own
    segments = torch.from_numpy(segment) if packed else None
    return TextBatch(torch.from_numpy(ids), torch.from_numpy(targets), segments)


# ---- row layouts ----------------------------------------------------------------------------------


class RowLayout(ABC):
    """Layout of the text in the rows of each epoch. The last ``spare`` ids of a contiguous text are not inputs: where
    the target of each token is the next one, the last token is only a target."""

    count: int
    """Rows of an epoch."""
    cells: int
    """Positions of an epoch that are not padding."""

    @abstractmethod
    def rows(self, draw: np.random.PCG64 | None) -> list[PackedRow]:
        """Return the rows of an epoch, in order; ``draw`` shifts or shuffles their contents."""


class Stretches(RowLayout):
    """Rows of the next ``context`` tokens, across document boundaries. Each epoch begins at another offset."""

    def __init__(self, text: Column, context: int, spare: int = 1):
        self.tokens, self.context = len(text.ids) - spare, context
        self.count = max(1, (self.tokens - context + 1) // context)
        self.cells = min(self.tokens, self.count * context)

    def rows(self, draw: np.random.PCG64 | None) -> list[PackedRow]:
        room = self.tokens - self.cells
        if draw is None:  # in order and whole
            begins = np.arange(0, self.tokens, self.context)
        else:
            begins = int(draw.random_raw() % min(self.context, room + 1)) + self.context * np.arange(self.count)
        lengths = np.minimum(self.context, self.tokens - begins)
        return list(np.stack([begins, lengths], axis=1)[:, None, :])


class Packed(RowLayout):
    """Rows of whole documents, packed by best fit (Ding et al., arXiv:2404.10830): only documents longer than a row are
    split. Each epoch combines other documents of the same lengths."""

    def __init__(self, text: Column, context: int, spare: int = 1):
        self.pieces = pieces(text, context, spare)  # (N, 2)
        self.descending = np.sort(self.pieces[:, 1])[::-1]
        self.bins = _best_fit(self.descending.tolist(), context)
        self.count, self.cells = len(self.bins), int(self.descending.sum())

    def rows(self, draw: np.random.PCG64 | None) -> list[PackedRow]:
        tie = np.arange(len(self.pieces)) if draw is None else draw.random_raw(len(self.pieces))
        ordered = self.pieces[np.lexsort((tie, -self.pieces[:, 1]))]
        return [ordered[members] for members in self.bins]


def pieces(text: Column, context: int, spare: int) -> Int[np.ndarray, "N 2"]:
    """Return the documents as pieces; those longer than ``context`` are split."""
    lengths = text.lengths.astype(np.int64) - spare
    parts = -(-lengths // context)
    document = np.repeat(np.arange(len(lengths)), parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = text.starts[document] + part * context
    return np.stack([begin, np.minimum(context, lengths[document] - part * context)], axis=1)


def _best_fit(descending: list[int], size: int) -> list[list[int]]:
    """Return bins of capacity ``size`` with the indices of their lengths: each goes where it leaves the least room."""
    bins: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # those that some bin has left, ascending
    for i, length in enumerate(descending):
        at = bisect_left(rooms, length)
        if at == len(rooms):
            room, chosen = size, len(bins)
            bins.append([])
        else:
            room = rooms[at]
            chosen = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        bins[chosen].append(i)
        if left := room - length:
            if left not in by_room:
                by_room[left] = []
                insort(rooms, left)
            by_room[left].append(chosen)
    return bins


# ---- batches --------------------------------------------------------------------------------------


class RowBatches:
    """Batches of every step: ``rows`` rows each, ``accumulate`` batches per step; the last of an epoch has the rest."""

    def __init__(self, layout: RowLayout, rows: int, seed: int, accumulate: int = 1):
        if not layout.cells:
            raise DataError("no text to learn from")
        self.layout, self.size, self.seed, self.accumulate = layout, max(1, rows), seed, accumulate
        self.batches = math.ceil(layout.count / self.size)
        self.steps_per_epoch = math.ceil(self.batches / accumulate)
        self._epoch: tuple[int, list[PackedRow]] | None = None

    def at(self, step: int) -> list[list[PackedRow]]:
        """Return the rows of each of the step's batches. Steps count from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._plan(epoch)
        rows = self._epoch[1]
        first, last = index * self.accumulate, min((index + 1) * self.accumulate, self.batches)
        return [rows[i * self.size : (i + 1) * self.size] for i in range(first, last)]

    def in_order(self) -> list[list[PackedRow]]:
        """Return batches of the whole text, in the same order each time."""
        rows = self.layout.rows(None)
        return [rows[i : i + self.size] for i in range(0, len(rows), self.size)]

    @property
    def padding_share(self) -> float:
        """Fraction of padding if all rows are padded to the longest."""
        rows = self.layout.rows(None)
        longest = max(int(row[:, 1].sum()) for row in rows)
        return 1 - sum(int(row[:, 1].sum()) for row in rows) / (longest * len(rows))

    def _plan(self, epoch: int) -> list[PackedRow]:
        draw = np.random.PCG64([self.seed, epoch])  # numpy promises that this stream stays what it is
        rows = self.layout.rows(draw)
        return [rows[i] for i in np.argsort(draw.random_raw(len(rows)), kind="stable")]
