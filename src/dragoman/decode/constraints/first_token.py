"""A first token that is given: the language in which a translator for many languages is to answer.

B sentences of a batch, R rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dragoman.config import config
from dragoman.decode.search.rule import RowMemory, Rule, SearchStart, only
from dragoman.decode.search.strategy import Choice

TokenId = Annotated[int, Field(ge=0, lt=2**31)]


@config
class FirstToken:
    """Begin every answer with ``token``, which costs a beam nothing (``forced_bos_token_id`` in transformers)."""

    token: TokenId
    """Id in the target vocabulary; an unknown one is ignored."""

    def before(self, ids: Sequence[int], vocabulary: int) -> list[int]:
        """Return an answer of these ids as the model gives it, with a vocabulary of so many tokens."""
        return [self.token, *ids] if self.token < vocabulary else list(ids)

    def start(self, search_start: SearchStart) -> Rule:
        return GivenFirst(self.token, len(search_start.prompt), search_start.prompt.device)


class GivenFirst(Rule):
    """The rule of ``FirstToken`` for one batch."""

    def __init__(self, token: int, rows: int, device: torch.device):
        self.token, self.at_start = token, True
        self.first = RowMemory(torch.ones(rows, dtype=torch.bool, device=device))
        self.needs = [1] * rows

    def given(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        if not self.at_start or self.token >= logits.shape[1]:
            return logits
        return only(self.token, self.first.rows, logits)

    def follow(self, choice: Choice) -> None:
        self.first.follow(choice)
        self.first.rows, self.at_start = torch.zeros_like(self.first.rows), False

    def join(self, other: Rule) -> None:
        assert isinstance(other, GivenFirst)
        self.first.join(other.first)
        self.at_start = self.at_start or other.at_start


class ForbiddenFirst(Rule):
    """Begin no answer with one of some tokens (``begin_suppress_tokens`` in transformers)."""

    joinable = False

    def __init__(self, tokens: Sequence[int]):
        self.tokens, self.at_start = list(tokens), True

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        if not self.at_start:
            return logits
        return logits.index_fill(1, torch.tensor(self.tokens, device=logits.device), -torch.inf)

    def follow(self, choice: Choice) -> None:
        self.at_start = False
