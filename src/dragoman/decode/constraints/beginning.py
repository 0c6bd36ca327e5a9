"""Forced prefixes: translations that begin with given tokens, then with given characters, in any tokenisation.

The last token of a prefix in characters may spell more than the rest of it: "a tr" may continue with " translation". So
words are tokenized as the model has learnt, and not where the prefix happens to end.

N sentences still being translated, R rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.search.rule import RowMemory, Rule
from dragoman.decode.search.strategy import Choice


class Beginning(NamedTuple):
    """The rest of a prefix; false where nothing is left."""

    ids: tuple[int, ...] = ()
    rest: bytes = b""

    def after(self, token: int, vocabulary: SpelledVocabulary) -> "Beginning":
        """Return what is left after a token."""
        if self.ids:
            return Beginning(self.ids[1:], self.rest)
        return Beginning((), self.rest[len(vocabulary.spelling(token)) :]) if self.rest else self

    def __bool__(self) -> bool:
        return bool(self.ids or self.rest)


class ForcedBeginning(Rule):
    """Restrict each row's next token to those that continue its prefix."""

    def __init__(
        self,
        beginnings: Sequence[Beginning],
        vocabulary: SpelledVocabulary,
        device: torch.device,
        *,
        after_first: bool = False,
    ):
        """
        Args:
            after_first: the prefix comes after a first token that another rule gives (``first_token.py``).
        """
        self.vocabulary, self.waits = vocabulary, after_first
        self.needs = [len(b.ids) + len(b.rest) for b in beginnings]
        self.numbers = _numbered(beginnings)
        self.memory = RowMemory(torch.tensor([self.numbers[b] for b in beginnings], device=device))  # (R,)
        self.under_way = any(beginnings)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        if self.waits or not self.under_way:
            return logits
        ranked = logits.clone()
        for row, beginning in enumerate(self.now()):
            if beginning:
                allowed = torch.tensor(self.allowed(beginning), device=logits.device)
                ranked[row] = -torch.inf
                ranked[row, allowed] = logits[row, allowed]
        return ranked

    def allowed(self, beginning: Beginning) -> list[int]:
        """Return the tokens that continue a prefix."""
        return [beginning.ids[0]] if beginning.ids else self.vocabulary.towards(beginning.rest)

    def now(self) -> list[Beginning]:
        """Return the rest of each row's prefix."""
        known = list(self.numbers)
        return [known[number] for number in self.memory.rows.tolist()]

    def follow(self, choice: Choice) -> None:
        self.memory.follow(choice)
        if self.waits or not self.under_way:
            self.waits = False
            return
        after = [b.after(token, self.vocabulary) for b, token in zip(self.now(), choice.tokens.tolist(), strict=True)]
        numbers = [self.numbers.setdefault(beginning, len(self.numbers)) for beginning in after]
        self.memory.rows = torch.tensor(numbers, device=choice.tokens.device)
        self.under_way = any(after)

    def join(self, other: Rule) -> None:
        assert isinstance(other, ForcedBeginning)
        both = self.now(), other.now()
        self.numbers = _numbered([*both[0], *both[1]])  # those of rows that are gone are forgotten
        for memory, beginnings in zip((self.memory, other.memory), both, strict=True):
            memory.rows = torch.tensor([self.numbers[b] for b in beginnings], device=memory.rows.device)
        self.memory.join(other.memory)
        self.under_way = self.under_way or other.under_way


def _numbered(beginnings: Sequence[Beginning]) -> dict[Beginning, int]:
    """Return a number for each distinct beginning, and for the one of which nothing is left."""
    return {beginning: number for number, beginning in enumerate(dict.fromkeys([*beginnings, Beginning()]))}
