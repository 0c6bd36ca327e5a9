"""Where beams came from: written forwards, a few numbers a step, and read backwards once, when the answers are known.

Copying the beginnings of all hypotheses at each step is so avoided, and so is any Python for each hypothesis.
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
    """The rows that went on from a step."""

    parent: Int[Tensor, " R"]
    """Row of the step before; of the batch, at the first step."""
    token: Int[Tensor, " R"]
    total: Float[Tensor, " R"]
    """Log-probability up to and including the token."""


class EndedHypotheses(NamedTuple):
    """The translations that may have ended at a step."""

    real: Bool[Tensor, "N K"]
    """False where none did."""
    sentence: Int[Tensor, "N K"]
    parent: Int[Tensor, "N K"]
    total: Float[Tensor, "N K"]
    score: Float[Tensor, "N K"]
    cut: Bool[Tensor, "N K"]


class Backpointers:
    def __init__(self, sentences: int) -> None:
        self.begun = [0] * sentences
        """For each sentence, how many steps had been made before its first."""
        self.grown: list[ContinuedRows] = []
        self.ended: list[EndedHypotheses] = []

    def join(self, other: "Backpointers") -> None:
        """Take in the sentences of ``other``, behind these; the last steps of both become one."""
        later = len(self.ended) - len(other.ended)
        theirs = [e._replace(sentence=e.sentence + len(self.begun)) for e in other.ended]
        self.begun = [b - min(later, 0) for b in self.begun] + [b + max(later, 0) for b in other.begun]
        rows = [0] * -min(later, 0) + [len(g.parent) for g in self.grown]  # here, after each step
        before = [0, *rows][max(later, 0) :]  # and before each of those of ``other``
        self.ended = _side_by_side(self.ended, [_after(e, n) for e, n in zip(theirs, before, strict=False)])
        self.grown = _side_by_side(self.grown, [_after(g, n) for g, n in zip(other.grown, before, strict=False)])

    def trace(self, nbest: int) -> list[list[Hypothesis]]:
        """The ``nbest`` of each sentence by score; of equals the one that ended first."""
        sentences, begun = len(self.begun), np.array(self.begun)
        step = np.repeat(np.arange(len(self.ended)), [e.real.numel() for e in self.ended])
        real, sentence, parent, total, score, cut = _joined(self.ended)
        ranked = np.lexsort((-score, sentence, ~real))[: real.sum()]  # stable: earlier steps and better ranks first
        starts = np.searchsorted(sentence[ranked], np.arange(sentences))
        if (np.bincount(sentence[ranked], minlength=sentences) == 0).any():
            raise not_numbers() if np.isnan(total).any() else nothing_allowed()
        chosen = ranked[np.arange(len(ranked)) - starts[sentence[ranked]] < nbest]

        first = begun[sentence[chosen]]
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
                    truncated=bool(cut[which]),
                )
            )
        return results

    def _walk_back(
        self, first: np.ndarray, last: np.ndarray, row: np.ndarray, total: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n, T) and log-probabilities up to each of them (n, T + 1) of answers, by their first step and their
        last."""
        n, T = len(last), int((last - first).max()) + 1
        tokens, totals = np.full((n, T), EOS), np.zeros((n, T + 1), dtype=np.float64)
        totals[np.arange(n), last - first + 1] = total
        if T == 1:
            return tokens, totals
        sizes = np.cumsum([0, *(len(g.parent) for g in self.grown)])
        parents, said, reached = _joined(self.grown)
        for t in range(last.max() - 1, -1, -1):
            (under_way,) = np.nonzero((first <= t) & (t < last))
            at, place = sizes[t] + row[under_way], t - first[under_way]
            tokens[under_way, place], totals[under_way, place + 1] = said[at], reached[at]
            row[under_way] = parents[at]
        return tokens, totals


StepRecord = TypeVar("StepRecord", ContinuedRows, EndedHypotheses)


def _after(record: StepRecord, rows: int) -> StepRecord:
    """The same where so many rows come before those it speaks of."""
    return record._replace(parent=record.parent + rows)


def _side_by_side(a: list[StepRecord], b: list[StepRecord]) -> list[StepRecord]:
    """Those of both, the last ones with each other."""
    n = min(len(a), len(b))
    pairs = zip(a[len(a) - n :], b[len(b) - n :], strict=True)
    return a[: len(a) - n] + b[: len(b) - n] + [type(x)(*map(torch.cat, zip(x, y, strict=True))) for x, y in pairs]


def _joined(records: list[ContinuedRows] | list[EndedHypotheses]) -> list[np.ndarray]:
    """Each field of all records end to end, fetched from the device at once."""
    return [torch.cat([t.flatten() for t in field]).cpu().numpy() for field in zip(*records, strict=True)]
