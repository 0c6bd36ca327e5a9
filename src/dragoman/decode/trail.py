"""Where beams came from: written forwards, a few numbers a step, and read backwards once, when the answers are known.

Copying the beginnings of all hypotheses at each step is so avoided, and so is any Python for each hypothesis.
N sentences, K hypotheses of each, R rows, n answers, T steps.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.decode.strategy import Hypothesis, not_numbers, nothing_allowed
from dragoman.text.tokenizer import EOS


class Grown(NamedTuple):
    """The rows that went on from a step."""

    parent: Int[Tensor, " R"]
    """Row of the step before; of the batch, at the first step."""
    token: Int[Tensor, " R"]
    total: Float[Tensor, " R"]
    """Log-probability up to and including the token."""


class Ended(NamedTuple):
    """The translations that may have ended at a step."""

    real: Bool[Tensor, "N K"]
    """False where none did."""
    sentence: Int[Tensor, "N K"]
    parent: Int[Tensor, "N K"]
    total: Float[Tensor, "N K"]
    score: Float[Tensor, "N K"]
    cut: Bool[Tensor, "N K"]


class Trail:
    def __init__(self) -> None:
        self.grown: list[Grown] = []
        self.ended: list[Ended] = []

    def trace(self, sentences: int, nbest: int) -> list[list[Hypothesis]]:
        """The ``nbest`` of each sentence by score; of equals the one that ended first."""
        step = np.repeat(np.arange(len(self.ended)), [e.real.numel() for e in self.ended])
        real, sentence, parent, total, score, cut = _joined(self.ended)
        ranked = np.lexsort((-score, sentence, ~real))[: real.sum()]  # stable: earlier steps and better ranks first
        starts = np.searchsorted(sentence[ranked], np.arange(sentences))
        if (np.bincount(sentence[ranked], minlength=sentences) == 0).any():
            raise not_numbers() if np.isnan(total).any() else nothing_allowed()
        chosen = ranked[np.arange(len(ranked)) - starts[sentence[ranked]] < nbest]

        tokens, totals = self._walk_back(step[chosen], parent[chosen], total[chosen])
        results: list[list[Hypothesis]] = [[] for _ in range(sentences)]
        for i, which in enumerate(chosen):
            length = int(step[which]) + 1
            results[sentence[which]].append(
                Hypothesis(
                    tokens=tuple(tokens[i, :length].tolist()),
                    token_log_probs=tuple(np.diff(totals[i, : length + 1]).tolist()),
                    log_prob=float(total[which]),
                    score=float(score[which]),
                    cut=bool(cut[which]),
                )
            )
        return results

    def _walk_back(self, step: np.ndarray, row: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n, T) and log-probabilities up to each of them (n, T + 1) of the answers that ended at ``step``."""
        n, T = len(step), int(step.max()) + 1
        tokens, totals = np.full((n, T), EOS), np.zeros((n, T + 1), dtype=np.float64)
        totals[np.arange(n), step + 1] = total
        if T == 1:
            return tokens, totals
        sizes = np.cumsum([0, *(len(g.parent) for g in self.grown)])
        parents, said, reached = _joined(self.grown)
        for t in range(T - 2, -1, -1):
            before = step > t
            at = sizes[t] + row[before]
            tokens[before, t], totals[before, t + 1] = said[at], reached[at]
            row[before] = parents[at]
        return tokens, totals


def _joined(records: list[Grown] | list[Ended]) -> list[np.ndarray]:
    """Each field of all records end to end, fetched from the device at once."""
    return [torch.cat([t.flatten() for t in field]).cpu().numpy() for field in zip(*records, strict=True)]
