"""Rules between the model's logits and the search that chooses among them.

A rule may change the logits of each step before the strategy reads them: minus infinity forbids a token. The strategy
chooses by the changed logits; the log-probabilities it reports are always the model's own. A token that is given to the
model, not chosen, has log-probability 0.

Users configure a rule by a config class with ``start(search_start) -> Rule``; see ``repetition``.

B sentences of a batch, N of them still being translated, W hypotheses of each, R = N x W rows, V vocabulary, S source
length, P prompt length.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dragoman.decode.search.strategy import Choice
from dragoman.text.tokens.tokenizer import PAD


class SearchStart(NamedTuple):
    """A batch before its first step: the data that a rule may be started from."""

    prompt: Int[Tensor, "B P"]
    """Beginning of the answer, padded in front with PAD; BOS where a source is translated."""
    source: Int[Tensor, "B S"] | None = None
    """Padded behind with PAD; None for models that continue text."""
    ends: tuple[int, ...] = ()
    """Tokens that end an answer, besides EOS."""


class Rule(ABC):
    """One rule for one batch. Its memory has a row for each hypothesis and moves with them."""

    needs: Sequence[int] | None = None
    """Tokens that each sentence must be allowed for the rule to be satisfied, its end not counted; None for none."""

    min_tokens = 0
    """Fewest tokens of an answer, its end not counted; its limit is raised to allow as many."""

    joinable = True
    """True where batches under this rule may be merged after their first step; ``join`` is then called."""

    def begin(self, limits: Sequence[int]) -> None:
        """Receive, before the first step, the most tokens that each sentence can have, its end included."""
        return

    def given(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        """Return the logits with those rows changed whose next token is given, not chosen: its probability is 1 there.

        ``logits`` must not be modified; the default returns it.
        """
        return logits

    def complete(self) -> Bool[Tensor, " R"] | None:
        """Return which rows hold a complete answer; None where none can. The next step ends them, without a token."""
        return None

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        """Return the logits to choose by. ``logits`` must not be modified; the default returns it."""
        return logits

    def join(self, other: "Rule") -> None:
        """Append the rows of ``other``, which is the same rule for other sentences."""
        raise NotImplementedError(f"{type(self).__name__} keeps the batch that it began with: see batching.py")

    @abstractmethod
    def follow(self, choice: Choice) -> None:
        """Apply a choice: keep the rows of ``choice.keep``, reorder them, record their newest tokens.

        Rows of a sentence multiply between the first step and the second. At the first step ``choice.tokens`` has W
        tokens for each row, and ``choice.rows`` is None.
        """


def only(token: int, rows: Bool[Tensor, " R"], logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
    """Return the logits with ``token`` certain in these rows, and every other token impossible."""
    certain = torch.full_like(logits, -torch.inf)
    certain[:, token] = 0.0
    return torch.where(rows[:, None], certain, logits)


class RowMemory:
    """Memory of a rule: a tensor with a row for each hypothesis, which moves as the batch does."""

    def __init__(self, rows: Shaped[Tensor, "B ..."]):
        self.rows, self.beams = rows, 1

    def follow(self, choice: Choice) -> None:
        if choice.keep is not None:
            self.rows = self.rows.unflatten(0, (-1, self.beams))[choice.keep].flatten(0, 1)
        if (beams := len(choice.tokens) // len(self.rows)) > 1:
            self.beams, self.rows = beams, self.rows.repeat_interleave(beams, dim=0)
        if choice.rows is not None:
            self.rows = self.rows[choice.rows]

    def join(self, other: "RowMemory") -> None:
        """Append the rows of ``other``."""
        assert self.beams == other.beams
        self.rows = torch.cat([self.rows, other.rows])


class TokenMemory(RowMemory):
    """Memory of the tokens of each row, padded in front with PAD."""

    rows: Int[Tensor, "R L"]

    def append(self, choice: Choice) -> None:
        """Apply a choice, and append its tokens."""
        self.follow(choice)
        self.rows = torch.cat([self.rows, choice.tokens[:, None]], dim=1)

    def join(self, other: RowMemory) -> None:
        """Append the rows of ``other``; columns that then are padding in every row, left by rows that are gone, are
        dropped."""
        longest = max(self.rows.shape[1], other.rows.shape[1])
        for memory in (self, other):
            memory.rows = F.pad(memory.rows, (longest - memory.rows.shape[1], 0), value=PAD)
        super().join(other)
        real = (self.rows != PAD).any(dim=0)
        self.rows = self.rows[:, int(real.int().argmax()) if real.any() else longest :]


class Rules(Rule):
    """Several rules applied one after the other; an empty list changes nothing."""

    def __init__(self, rules: Sequence[Rule] = ()):
        self.rules = list(rules)
        needs = [rule.needs for rule in self.rules if rule.needs is not None]
        self.needs = [sum(each) for each in zip(*needs, strict=True)] if needs else None
        self.min_tokens = max((rule.min_tokens for rule in self.rules), default=0)

    def begin(self, limits: Sequence[int]) -> None:
        for rule in self.rules:
            rule.begin(limits)

    def given(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        for rule in self.rules:
            logits = rule.given(logits)
        return logits

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        for rule in self.rules:
            logits = rule.apply(logits)
        return logits

    def complete(self) -> Bool[Tensor, " R"] | None:
        known = [rows for rule in self.rules if (rows := rule.complete()) is not None]
        return torch.stack(known).any(dim=0) if known else None

    def follow(self, choice: Choice) -> None:
        for rule in self.rules:
            rule.follow(choice)

    def join(self, other: Rule) -> None:
        assert isinstance(other, Rules)
        for mine, theirs in zip(self.rules, other.rules, strict=True):
            mine.join(theirs)
