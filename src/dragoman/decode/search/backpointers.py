"""Backpointers of a beam search: recorded a step at a time, and followed backwards once the search is over.

This avoids copying the prefixes of all hypotheses at each step, and any Python work for each hypothesis.
E hypotheses that may have ended at a step, R rows, n answers, T steps.
"""

import math
from collections.abc import Set
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.decode.search.records import StepRecords, record_dtype
from dragoman.decode.search.strategy import Hypothesis, Outcome, not_numbers, nothing_allowed
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

    sentence: Int[Tensor, " E"]
    parent: Int[Tensor, " E"]
    token: Int[Tensor, " E"]
    """Last token; ``NO_TOKEN`` where the hypothesis was complete before."""
    log_prob: Float[Tensor, " E"]
    score: Float[Tensor, " E"]
    truncated: Bool[Tensor, " E"]
    real: Bool[Tensor, " E"]
    """False where none ended."""


CONTINUED = record_dtype(ContinuedRows, "i8 i8 f4")
"""The same of one row, struct ``Continued`` of native/beam.h."""
ENDED = record_dtype(EndedHypotheses, "i8 i8 i8 f4 f4 ? ?")
"""The same of one hypothesis, struct ``Ended`` there."""


class Backpointers:
    """The recorded steps of a batch: which rows continued and which hypotheses ended."""

    def __init__(self, sentences: int) -> None:
        self.sentences = sentences
        """Number of sentences that the batch has had, those that are forgotten included."""
        self.first_steps = dict.fromkeys(range(sentences), 0)
        """For each sentence, the number of recorded steps before its first."""
        self.continued, self.ended = StepRecords(CONTINUED), StepRecords(ENDED)

    @property
    def started(self) -> set[int]:
        """Indices of the sentences that are not forgotten."""
        return set(self.first_steps)

    def join(self, other: "Backpointers") -> None:
        """Append the sentences of ``other``, which is used up; the last steps of both become one."""
        offset = len(self.ended.counts) - len(other.ended.counts)
        rows = [0] * -min(offset, 0) + self.continued.counts  # here, after each step
        before = [0, *rows][max(offset, 0) :]  # and before each step of ``other``
        other.ended.entries["sentence"] += self.sentences
        for mine, theirs in ((self.ended, other.ended), (self.continued, other.continued)):
            theirs.entries["parent"] += np.repeat(before[: len(theirs.counts)], theirs.counts)
            mine.merge(theirs)
        self.first_steps = {i: b - min(offset, 0) for i, b in self.first_steps.items()}
        self.first_steps |= {i + self.sentences: b + max(offset, 0) for i, b in other.first_steps.items()}
        self.sentences += other.sentences

    def forget(self, sentences: Set[int]) -> None:
        """Forget these sentences, and the steps that no other sentence has made."""
        if not sentences:
            return
        for sentence in sentences:
            del self.first_steps[sentence]
        self.ended.select(~np.isin(self.ended.entries["sentence"], list(sentences)))
        oldest = min(self.first_steps.values(), default=len(self.ended.counts))
        if oldest:
            self.ended.drop(oldest)
            self.continued.drop(oldest)
            self.first_steps = {i: first - oldest for i, first in self.first_steps.items()}

    def trace(self, nbest: int, sentences: Set[int] | None = None) -> dict[int, Outcome]:
        """Return the ``nbest`` hypotheses of each sentence by score; of equal scores the one that ended first.

        A sentence without hypotheses has the error instead: its log-probabilities are not numbers, or the rules left it
        no token to choose.

        Args:
            nbest: most hypotheses of a sentence.
            sentences: which ones; None for all.
        """
        found: dict[int, list[_Ended]] = {i: [] for i in sorted(self.first_steps if sentences is None else sentences)}
        if not found:
            return {}
        damaged, steps, entries = set[int](), self.ended.steps, self.ended.entries
        if sentences is not None:
            theirs = np.isin(entries["sentence"], list(found))
            steps, entries = steps[theirs], entries[theirs]
        for step, (sentence, *fields, real) in zip(steps.tolist(), entries.tolist(), strict=True):
            if real:
                found[sentence].append(_Ended(self.first_steps[sentence], step, *fields))
            elif math.isnan(fields[2]):
                damaged.add(sentence)
        for ended in found.values():
            ended.sort(key=lambda one: -one.score)  # stable: earlier steps and better ranks first
            del ended[nbest:]
        hypotheses = iter(self._hypotheses([one for ended in found.values() for one in ended]))
        none = {i: not_numbers() if i in damaged else nothing_allowed() for i, ended in found.items() if not ended}
        return {i: none.get(i) or [next(hypotheses) for _ in ended] for i, ended in found.items()}

    def _hypotheses(self, ended: list["_Ended"]) -> list[Hypothesis]:
        """Return the hypotheses that ended, with the tokens that led there."""
        if not ended:
            return []
        places = np.array([one[:4] for one in ended])
        tokens, log_probs = self._walk_back(places, np.array([one.log_prob for one in ended]))
        found = []
        for one, ids, each in zip(ended, tokens.tolist(), log_probs.tolist(), strict=True):
            count = one.step + 1 - one.first - (one.token == NO_TOKEN)
            answer = tuple(ids[:count]), tuple(each[:count])
            found.append(Hypothesis(*answer, one.log_prob, one.score, one.truncated))
        return found

    def _walk_back(
        self, ended: Int[np.ndarray, "n 4"], log_prob: Float[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, "n T"], Float[np.ndarray, "n T"]]:
        """Return the tokens of answers and their log-probabilities.

        Args:
            ended: of each answer the step before its first token, the step at which it ended, the row that it extends
                there, and its last token.
            log_prob: log-probabilities of the answers.
        """
        first, last, row, token = ended.T
        continued, n, T = self.continued.entries, len(ended), int((last - first).max()) + 1
        starts = np.cumsum([0, *self.continued.counts])
        tokens, log_probs = np.full((n, T), EOS), np.zeros((n, T))
        if available():
            arrays = (ended, log_prob, starts, continued, tokens, log_probs)
            library().walk_back(n, T, *(array.ctypes.data for array in arrays))
            return tokens, log_probs
        every, totals = np.arange(n), np.zeros((n, T + 1))
        tokens[every, last - first], totals[every, last - first + 1], row = token, log_prob, row.copy()
        for t in range(last.max() - 1, -1, -1):
            (under_way,) = np.nonzero((first <= t) & (t < last))
            at, column = continued[starts[t] + row[under_way]], t - first[under_way]
            tokens[under_way, column], totals[under_way, column + 1] = at["token"], at["log_prob"]
            row[under_way] = at["parent"]
        return tokens, np.diff(totals)


class _Ended(NamedTuple):
    """A hypothesis that ended."""

    first: int
    """Step before its first token."""
    step: int
    """Step at which it ended."""
    parent: int
    token: int
    log_prob: float
    score: float
    truncated: bool
