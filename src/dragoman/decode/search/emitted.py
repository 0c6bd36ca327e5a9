"""Tokens that a batch emits, where its rows are never reordered, and the hypotheses that they are.

R rows, n tokens.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.decode.search.records import StepRecords, record_dtype
from dragoman.decode.search.strategy import EmittedToken, Hypothesis, Outcome, not_numbers, nothing_allowed
from dragoman.errors import UserError


class Emitted(NamedTuple):
    """Tokens that the rows of a batch emitted at one step."""

    row: Int[Tensor, "*R"]
    """Index of the row among all rows of the batch."""
    token: Int[Tensor, "*R"]
    log_prob: Float[Tensor, "*R"]
    """Minus infinity where the rules allowed no token; the row then has no hypothesis."""
    truncated: Bool[Tensor, "*R"]
    """True where the length limit ended the row; it would have gone on, or could have."""
    real: Bool[Tensor, "*R"]
    """False in rows that had already ended, and where an answer was complete before."""


TOKEN = record_dtype(Emitted, "i8 i8 f4 ? ?")
"""The same of one token, struct ``Token`` of native/walk.c."""


class EmittedTokens(StepRecords):
    """The tokens that a batch emitted, those of each row in order. Its steps are those of the batch until rows join or
    leave."""

    def __init__(self, rows: int) -> None:
        super().__init__(TOKEN)
        self.rows = rows
        """Number of rows whose tokens are here."""

    def join(self, other: "EmittedTokens", rows: int) -> None:
        """Append the tokens of a batch whose rows follow ``rows`` others."""
        self.rows += other.rows
        theirs = other.entries.copy()
        theirs["row"] += rows
        self.extend(theirs, other.counts)

    def newest_tokens(self, rows: int) -> list[EmittedToken]:
        """Return the tokens of the last step, whose logits had so many rows."""
        newest = self.newest.tolist()
        each = len(newest) // rows
        return [
            EmittedToken(row, token, log_prob, i // each)
            for i, (row, token, log_prob, _, real) in enumerate(newest)
            if real
        ]

    def take_all_but(self, rows: Int[Tensor, "*R"]) -> np.ndarray:
        """Remove the tokens of all rows but ``rows``, and return them."""
        if rows.numel() == self.rows:  # most steps: nobody is done
            return np.empty(0, TOKEN)
        self.rows = rows.numel()
        staying = np.isin(self.entries["row"], rows.flatten().numpy(force=True))
        taken, left = self.entries[~staying], self.entries[staying]
        self.replace(left, [len(left)])
        return taken


def outcomes(tokens: np.ndarray, scored: Callable[[float, int], float], rows: int = 1) -> Iterator[tuple[int, Outcome]]:
    """Yield the first row and the outcome of each sentence whose tokens are given, by row.

    Args:
        tokens: those of whole rows, those of each row in order.
        scored: score of a log-probability and a number of tokens.
        rows: rows of each sentence, which follow one another; their hypotheses come best first.
    """
    written: dict[int, list[tuple[int, float, bool]]] = {}
    for row, token, log_prob, truncated, real in tokens.tolist():
        if real:
            written.setdefault(row, []).append((token, log_prob, truncated))
    found = [(row, _hypothesis(written[row], scored)) for row in sorted(written)]
    for i in range(0, len(found), rows):
        first, one = found[i][0], [each for _, each in found[i : i + rows]]
        failed = next((each for each in one if isinstance(each, UserError)), None)
        yield first, failed or sorted((each for each in one if isinstance(each, Hypothesis)), key=lambda h: -h.score)


def _hypothesis(
    written: list[tuple[int, float, bool]], scored: Callable[[float, int], float]
) -> Hypothesis | UserError:
    tokens, log_probs, truncated = zip(*written, strict=True)
    total = sum(log_probs)
    if not math.isfinite(total):
        return nothing_allowed() if total == -math.inf else not_numbers()
    return Hypothesis(tokens, log_probs, total, scored(total, len(tokens)), truncated[-1])
