"""Batches of corrupted text: corrupted anew in every epoch, as a function of (seed, step, position in the text) alone.

B batch, T length, S input length, N texts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dragoman.data.batch import Batches, PairBatch, as_batch
from dragoman.data.corruption import Corruption, CorruptionVocabulary, IdArray, Masking, RandomDraw, corrupt_texts
from dragoman.data.packing import IGNORE, PackedRow, RowBatches, TextBatch, pieces
from dragoman.data.padding import padded_array
from dragoman.data.rounds import Rounds
from dragoman.text.store import Column
from dragoman.text.tokens.tokenizer import PAD


@dataclass(frozen=True)
class CorruptedRows:
    """Rows of text, and the step that seeds their corruption."""

    rows: Any
    """Rows in the plan's form: a sequence of ``PackedRow`` for text, row numbers for pairs."""
    step: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: slice) -> "CorruptedRows":
        """Return some of the rows, with the same step."""
        return CorruptedRows(self.rows[some], self.step)


class DocumentRows:
    """Each document, or part of a long one, as a row of its own; rows of similar length are batched together.

    ``tokens`` limits the larger of input and target of a batch.
    """

    def __init__(self, text: Column, context: int, corruption: Corruption, tokens: int, seed: int, accumulate: int = 1):
        self.pieces = pieces(text, context, spare=0)
        lengths = np.stack(corruption.lengths(self.pieces[:, 1]), axis=1)
        self.batches = Batches(lengths, tokens, seed, accumulate)
        self.steps_per_epoch = self.batches.steps_per_epoch

    @property
    def padding_share(self) -> float:
        return self.batches.padding_share

    def at(self, step: int) -> list[list[PackedRow]]:
        return [self._rows(batch) for batch in self.batches.at(step)]

    def in_order(self) -> list[list[PackedRow]]:
        """Return batches of the whole text, in the same order each time."""
        first_epoch = range(self.steps_per_epoch)
        return [self._rows(batch) for step in first_epoch for batch in self.batches.at(step)]

    def _rows(self, batch: IdArray) -> list[PackedRow]:
        return [self.pieces[i : i + 1] for i in batch]


class FreshlyCorrupted:
    """Rows of another plan, with the step at which they are read."""

    def __init__(self, plan: RowBatches | DocumentRows | Batches | Rounds):
        self.plan, self.steps_per_epoch = plan, plan.steps_per_epoch

    @property
    def padding_share(self) -> float:
        return self.plan.padding_share

    def at(self, step: int) -> list[CorruptedRows]:
        return [CorruptedRows(rows, step) for rows in self.plan.at(step)]


def mask(text: Column, rows: CorruptedRows, seed: int, masking: Masking, vocabulary: CorruptionVocabulary) -> TextBatch:
    """Return rows of packed pieces with masks; targets are ``IGNORE`` except at chosen tokens."""
    T = max(int(row[:, 1].sum()) for row in rows.rows)
    ids, targets = np.full((len(rows.rows), T), PAD, np.int64), np.full((len(rows.rows), T), IGNORE, np.int64)
    segment = np.zeros_like(ids)
    for b, row in enumerate(rows.rows):
        at = 0
        for number, (whole, draw) in enumerate(_drawn(text, row, seed, rows.step)):
            here = slice(at, at + len(whole))
            ids[b, here], targets[b, here] = masking.corrupt(whole, draw, vocabulary)
            segment[b, here] = number
            at += len(whole)
        segment[b, at:] = len(row)  # padding is a segment of its own
    packed = any(len(row) > 1 for row in rows.rows)
    return TextBatch(torch.from_numpy(ids), torch.from_numpy(targets), torch.from_numpy(segment) if packed else None)


def hide(
    text: Column, rows: CorruptedRows, seed: int, corruption: Corruption, vocabulary: CorruptionVocabulary
) -> PairBatch:
    """Return each row as a corrupted source and the target to be generated."""
    texts, draws = zip(*(one for row in rows.rows for one in _drawn(text, row, seed, rows.step)), strict=True)
    return as_batch(*map(padded_array, corrupt_texts(texts, draws, corruption, vocabulary)))


def _drawn(text: Column, row: PackedRow, seed: int, step: int) -> Iterator[tuple[IdArray, RandomDraw]]:
    """Yield each piece of the row with random numbers of its own."""
    for begin, length in row.tolist():
        yield np.array(text.ids[begin : begin + length], np.int64), RandomDraw([seed, step, begin])
