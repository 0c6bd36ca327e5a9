"""Translations that begin as they are told to: by tokens, then by characters, whatever tokens these are cut into.

The last token of a beginning in characters may spell more than the rest of it: "a tr" may go on with " translation". So
the model cuts words as it has learnt to, and not where the beginning happens to end.

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
    """What is still to be said of one; nothing once both are empty."""

    ids: tuple[int, ...] = ()
    rest: bytes = b""

    def after(self, token: int, vocabulary: SpelledVocabulary) -> "Beginning":
        if self.ids:
            return Beginning(self.ids[1:], self.rest)
        return Beginning((), self.rest[len(vocabulary.spelling(token)) :]) if self.rest else self

    def __bool__(self) -> bool:
        return bool(self.ids or self.rest)


class ForcedBeginning(Rule):
    """Each row's next token must be on the way through its beginning."""

    def __init__(self, beginnings: Sequence[Beginning], vocabulary: SpelledVocabulary, device: torch.device):
        self.vocabulary = vocabulary
        self.needs = [len(b.ids) + len(b.rest) for b in beginnings]
        self.numbers = {beginning: number for number, beginning in enumerate(dict.fromkeys([*beginnings, Beginning()]))}
        self.memory = RowMemory(torch.tensor([self.numbers[b] for b in beginnings], device=device))  # (R,)
        self.under_way = any(beginnings)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        if not self.under_way:
            return logits
        ranked = logits.clone()
        for row, beginning in enumerate(self.now()):
            if beginning:
                allowed = torch.tensor(self.allowed(beginning), device=logits.device)
                ranked[row] = -torch.inf
                ranked[row, allowed] = logits[row, allowed]
        return ranked

    def allowed(self, beginning: Beginning) -> list[int]:
        return [beginning.ids[0]] if beginning.ids else self.vocabulary.towards(beginning.rest)

    def now(self) -> list[Beginning]:
        known = list(self.numbers)
        return [known[number] for number in self.memory.rows.tolist()]

    def follow(self, choice: Choice) -> None:
        self.memory.follow(choice)
        if not self.under_way:
            return
        after = [b.after(token, self.vocabulary) for b, token in zip(self.now(), choice.tokens.tolist(), strict=True)]
        numbers = [self.numbers.setdefault(beginning, len(self.numbers)) for beginning in after]
        self.memory.rows = torch.tensor(numbers, device=choice.tokens.device)
        self.under_way = any(after)

    def join(self, other: Rule) -> None:
        assert isinstance(other, ForcedBeginning)
        theirs = [self.numbers.setdefault(beginning, len(self.numbers)) for beginning in other.now()]
        other.memory.rows = torch.tensor(theirs, device=self.memory.rows.device)
        self.memory.join(other.memory)
        self.under_way = self.under_way or other.under_way
