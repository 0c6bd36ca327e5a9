"""Backpointers of a beam search: recorded a step at a time, and followed backwards once the search is over.

This avoids copying the prefixes of all hypotheses at each step, and any Python work for each hypothesis.
N sentences, K hypotheses of each, R rows, n answers, T steps.
"""

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.decode.search.strategy import Hypothesis, not_numbers, nothing_allowed
from dragoman.text.tokens.tokenizer import EOS


class ContinuedRows(NamedTuple):
    """Rows that continue after a step."""

    parent: Int[Tensor, " R"]
    """Row of the step before; at the first step, row of the batch."""
    token: Int[Tensor, " R"]
    total: Float[Tensor, " R"]
    """Log-probability up to and including the token."""


class EndedHypotheses(NamedTuple):
    """Candidates that may have ended at a step."""

    real: Bool[Tensor, "N K"]
    """False where none ended."""
    sentence: Int[Tensor, "N K"]
    parent: Int[Tensor, "N K"]
    total: Float[Tensor, "N K"]
    score: Float[Tensor, "N K"]
    truncated: Bool[Tensor, "N K"]


class Backpointers:
    """The recorded steps of a batch: which rows continued and which hypotheses ended."""

    def __init__(self, sentences: int) -> None:
        self.first_steps = [0] * sentences
        """For each sentence, the number of steps that the batch had made before its first."""
        self.continued: list[ContinuedRows] = []
        self.ended: list[EndedHypotheses] = []

    def join(self, other: "Backpointers") -> None:
        """Append the sentences of ``other``; the last steps of both become one."""
        offset = len(self.ended) - len(other.ended)
        theirs = [e._replace(sentence=e.sentence + len(self.first_steps)) for e in other.ended]
        self.first_steps = [b - min(offset, 0) for b in self.first_steps] + [
            b + max(offset, 0) for b in other.first_steps
        ]
        rows = [0] * -min(offset, 0) + [len(g.parent) for g in self.continued]  # here, after each step
        before = [0, *rows][max(offset, 0) :]  # and before each step of ``other``
        self.ended = _align_last(self.ended, [_shift_parents(e, n) for e, n in zip(theirs, before, strict=False)])
        self.continued = _align_last(
            self.continued, [_shift_parents(g, n) for g, n in zip(other.continued, before, strict=False)]
        )

    def trace(self, nbest: int) -> list[list[Hypothesis]]:
        """Return the ``nbest`` hypotheses of each sentence by score; of equal scores the one that ended first.

        Raises:
            CheckpointError: the log-probabilities are not numbers.
            ConfigError: the rules left a sentence without a hypothesis.
        """
        sentences, first_steps = len(self.first_steps), np.array(self.first_steps)
        step = np.repeat(np.arange(len(self.ended)), [e.real.numel() for e in self.ended])
        real, sentence, parent, total, score, truncated = _concatenate(self.ended)
        ranked = np.lexsort((-score, sentence, ~real))[: real.sum()]  # stable: earlier steps and better ranks first
        starts = np.searchsorted(sentence[ranked], np.arange(sentences))
        if (np.bincount(sentence[ranked], minlength=sentences) == 0).any():
            raise not_numbers() if np.isnan(total).any() else nothing_allowed()
        chosen = ranked[np.arange(len(ranked)) - starts[sentence[ranked]] < nbest]

        first = first_steps[sentence[chosen]]
        tokens, totals = self._walk_back(first, step[chosen], parent[chosen], total[chosen])
        results: list[list[Hypothesis]] = [[] for _ in range(sentences)]
        for i, which in enumerate(chosen):
            length = int(step[which] - first[i]) + 1
            results[sentence[which]].append(
                Hypothesis(
                    tokens=tuple(tokens[i, :length].tolist()),
                    token_log_probs=tuple(np.diff(totals[i, : length + 1]).tolist()),
                    log_prob=float(total[which]),
                    score=float(score[which]),
                    truncated=bool(truncated[which]),
                )
            )
        return results

    def _walk_back(
        self, first: np.ndarray, last: np.ndarray, row: np.ndarray, total: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens (n, T) of answers and their cumulative log-probabilities (n, T + 1).

        Args:
            first: step before the first token of each answer.
            last: step at which it ended.
            row: row that it extends at its last step.
            total: its log-probability.
        """
        n, T = len(last), int((last - first).max()) + 1
        tokens, totals = np.full((n, T), EOS), np.zeros((n, T + 1), dtype=np.float64)
        totals[np.arange(n), last - first + 1] = total
        if T == 1:
            return tokens, totals
        sizes = np.cumsum([0, *(len(g.parent) for g in self.continued)])
        parents, emitted, cumulative = _concatenate(self.continued)
        for t in range(last.max() - 1, -1, -1):
            (under_way,) = np.nonzero((first <= t) & (t < last))
            at, column = sizes[t] + row[under_way], t - first[under_way]
            tokens[under_way, column], totals[under_way, column + 1] = emitted[at], cumulative[at]
            row[under_way] = parents[at]
        return tokens, totals


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
    return [torch.cat([t.flatten() for t in field]).cpu().numpy() for field in zip(*records, strict=True)]
