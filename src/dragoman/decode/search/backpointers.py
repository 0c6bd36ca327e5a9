"""Backpointers of a beam search: recorded a step at a time, and followed backwards once the search is over.

This avoids copying the prefixes of all hypotheses at each step, and any Python work for each hypothesis.
E hypotheses that may have ended at a step, R rows, n answers, T steps.
"""

import math
from collections.abc import Set
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.decode.search.strategy import Hypothesis, Outcome, not_numbers, nothing_allowed
from dragoman.errors import UserError
from dragoman.native.library import available, library
from dragoman.text.tokens.tokenizer import EOS

NO_TOKEN = -1
"""Stands for the last token of a hypothesis that was complete before it ended, as in native/beam.c."""


class ContinuedRows(NamedTuple):
    """Rows that continue after a step."""

    parent: Int[Tensor, " R"]
    """Row of the step before; at the first step, row of the batch."""
    token: Int[Tensor, " R"]
    log_prob: Float[Tensor, " R"]
    """The model's own log-probability up to and including the token."""


class EndedHypotheses(NamedTuple):
    """Candidates that may have ended at a step."""

    real: Bool[Tensor, " E"]
    """False where none ended."""
    sentence: Int[Tensor, " E"]
    parent: Int[Tensor, " E"]
    token: Int[Tensor, " E"]
    """Last token; ``NO_TOKEN`` where the hypothesis was complete before."""
    log_prob: Float[Tensor, " E"]
    score: Float[Tensor, " E"]
    truncated: Bool[Tensor, " E"]


class Backpointers:
    """The recorded steps of a batch: which rows continued and which hypotheses ended."""

    def __init__(self, sentences: int) -> None:
        self.sentences = sentences
        """Number of sentences that the batch has had, those that are forgotten included."""
        self.first_steps = dict.fromkeys(range(sentences), 0)
        """For each sentence, the number of recorded steps before its first."""
        self.continued: list[ContinuedRows] = []
        self.ended: list[EndedHypotheses] = []

    @property
    def started(self) -> set[int]:
        """Indices of the sentences that are not forgotten."""
        return set(self.first_steps)

    def join(self, other: "Backpointers") -> None:
        """Append the sentences of ``other``; the last steps of both become one."""
        offset = len(self.ended) - len(other.ended)
        theirs = [e._replace(sentence=e.sentence + self.sentences) for e in other.ended]
        rows = [0] * -min(offset, 0) + [len(g.parent) for g in self.continued]  # here, after each step
        before = [0, *rows][max(offset, 0) :]  # and before each step of ``other``
        self.ended = _align_last(self.ended, [_shift_parents(e, n) for e, n in zip(theirs, before, strict=False)])
        self.continued = _align_last(
            self.continued, [_shift_parents(g, n) for g, n in zip(other.continued, before, strict=False)]
        )
        self.first_steps = {i: b - min(offset, 0) for i, b in self.first_steps.items()}
        self.first_steps |= {i + self.sentences: b + max(offset, 0) for i, b in other.first_steps.items()}
        self.sentences += other.sentences

    def forget(self, sentences: Set[int]) -> None:
        """Forget these sentences, and the steps that no other sentence has made."""
        for sentence in sentences:
            del self.first_steps[sentence]
        oldest = min(self.first_steps.values(), default=len(self.ended))
        if oldest:
            del self.ended[:oldest], self.continued[:oldest]
            self.first_steps = {i: first - oldest for i, first in self.first_steps.items()}

    def trace(self, nbest: int, sentences: Set[int] | None = None) -> dict[int, Outcome]:
        """Return the ``nbest`` hypotheses of each sentence by score; of equal scores the one that ended first.

        A sentence without hypotheses has the error instead: its log-probabilities are not numbers, or the rules left it
        no token to choose.

        Args:
            nbest: most hypotheses of a sentence.
            sentences: which ones; None for all.
        """
        wanted = sorted(self.first_steps if sentences is None else sentences)
        if not wanted:
            return {}
        ends = [(t, ended) for t, ended in enumerate(self.ended) if ended.real.numel()]  # at most steps nothing ends
        step = np.repeat([t for t, _ in ends], [ended.real.numel() for _, ended in ends])
        fields = _concatenate([ended for _, ended in ends]) or [step] * len(EndedHypotheses._fields)
        if sentences is not None:
            theirs = np.isin(fields[1], wanted)
            step, fields = step[theirs], [field[theirs] for field in fields]
        real, sentence, parent, token, log_prob, score, truncated = (field.tolist() for field in fields)
        found: dict[int, list[int]] = {i: [] for i in wanted}
        for at, i in enumerate(sentence):
            if real[at]:
                found[i].append(at)
        none = dict[int, UserError]()
        if not all(found.values()):
            damaged = {i for at, i in enumerate(sentence) if math.isnan(log_prob[at])}
            none = {i: not_numbers() if i in damaged else nothing_allowed() for i in found if not found[i]}
        if len(none) == len(found):
            return {**none}
        for places in found.values():
            places.sort(key=lambda at: -score[at])  # stable: earlier steps and better ranks first
            del places[nbest:]
        chosen = [at for places in found.values() for at in places]
        first = np.array([self.first_steps[sentence[at]] for at in chosen])
        last, row = (np.array([field[at] for at in chosen]) for field in (step, parent))
        tokens, totals = self._walk_back(first, last, row, np.array([log_prob[at] for at in chosen]))
        lengths = last - first + 1
        tokens[np.arange(len(chosen)), lengths - 1] = [token[at] for at in chosen]
        lengths -= [token[at] == NO_TOKEN for at in chosen]
        written = zip(chosen, lengths.tolist(), tokens.tolist(), np.diff(totals).tolist(), strict=True)
        hypotheses = {
            at: Hypothesis(tuple(ids[:n]), tuple(log_probs[:n]), log_prob[at], score[at], truncated[at])
            for at, n, ids, log_probs in written
        }
        return {i: none[i] if i in none else [hypotheses[at] for at in places] for i, places in found.items()}

    def _walk_back(
        self, first: np.ndarray, last: np.ndarray, row: np.ndarray, log_prob: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens (n, T) of answers and their cumulative log-probabilities (n, T + 1).

        Args:
            first: step before the first token of each answer.
            last: step at which it ended.
            row: row that it extends at its last step.
            log_prob: its log-probability.
        """
        n, T = len(last), int((last - first).max()) + 1
        tokens, totals = np.full((n, T), EOS), np.zeros((n, T + 1), dtype=np.float64)
        totals[np.arange(n), last - first + 1] = log_prob
        if T == 1:
            return tokens, totals
        if self.continued[-1].parent.is_cpu and available():
            self._walk_back_by_kernel(first, last, row, tokens, totals)
            return tokens, totals
        sizes = np.cumsum([0, *(len(g.parent) for g in self.continued)])
        parents, emitted, cumulative = _concatenate(self.continued)
        for t in range(last.max() - 1, -1, -1):
            (under_way,) = np.nonzero((first <= t) & (t < last))
            at, column = sizes[t] + row[under_way], t - first[under_way]
            tokens[under_way, column], totals[under_way, column + 1] = emitted[at], cumulative[at]
            row[under_way] = parents[at]
        return tokens, totals

    def _walk_back_by_kernel(
        self, first: np.ndarray, last: np.ndarray, row: np.ndarray, tokens: np.ndarray, totals: np.ndarray
    ) -> None:
        """Do the same in C: write ``tokens`` and ``totals``."""
        places = np.array(
            [[t.data_ptr() for t in field] for field in zip(*self.continued, strict=True)], dtype=np.uint64
        )
        arrays = (first, last, row, *places, tokens, totals)
        library().walk_back(*tokens.shape, *(array.ctypes.data for array in arrays))


StepRecord = TypeVar("StepRecord", ContinuedRows, EndedHypotheses)


def _shift_parents(record: StepRecord, rows: int) -> StepRecord:
    """Return the record with ``rows`` other rows in front of the parents."""
    return record._replace(parent=record.parent + rows)


def _align_last(a: list[StepRecord], b: list[StepRecord]) -> list[StepRecord]:
    """Combine two lists of records so that their last steps coincide."""
    n = min(len(a), len(b))
    pairs = zip(a[len(a) - n :], b[len(b) - n :], strict=True)
    return a[: len(a) - n] + b[: len(b) - n] + [type(x)(*map(torch.cat, zip(x, y, strict=True))) for x, y in pairs]


def _concatenate(records: list[ContinuedRows] | list[EndedHypotheses]) -> list[np.ndarray]:
    """Return each field of all records end to end, fetched from the device at once."""
    return [torch.cat(field).cpu().numpy() for field in zip(*records, strict=True)]
