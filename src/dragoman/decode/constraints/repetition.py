"""Rules against saying the same again, ending too early, and tokens that must not be said.

Each is a config class; ``start`` makes the rule for a batch. They work with every search, in the order they are given.

B sentences of a batch, R rows, V vocabulary, P prompt length, L tokens said so far, the prompt included.
"""

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.decode.search.rule import RowMemory, Rule, SearchStart
from dragoman.decode.search.strategy import Choice
from dragoman.text.tokens.tokenizer import EOS

# ---- saying the same again -------------------------------------------------------------------------


@config
class RepetitionPenalty:
    """Logits of tokens said before are divided by ``factor`` where positive, and multiplied where negative (CTRL,
    Keskar et al. 2019, section 4.1). A prompt counts as said."""

    factor: PositiveFloat = 1.2
    """Above 1 repetition grows rarer, below 1 more frequent."""

    def start(self, begun: SearchStart) -> Rule:
        return Repetition(self, begun)


@config
class CountPenalty:
    """Logits fall by ``presence`` for a token that the answer holds, and by ``frequency`` for each time it does, as in
    the chat interfaces of today. A prompt does not count."""

    presence: float = 0.0
    frequency: float = 0.0

    def start(self, begun: SearchStart) -> Rule:
        return Counts(self, begun)


@config
class NoRepeat:
    """No ``tokens`` in a row are said twice (Paulus et al. 2017, section 2.5, for three). A prompt counts as said."""

    tokens: PositiveInt = 3

    def start(self, begun: SearchStart) -> Rule:
        return NoSecondTime(self, begun)


class Repetition(Rule):
    def __init__(self, cfg: RepetitionPenalty, begun: SearchStart):
        self.factor, self.said = cfg.factor, RowMemory(begun.prompt)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        before = logits.gather(1, self.said.rows)
        return logits.scatter(1, self.said.rows, torch.where(before > 0, before / self.factor, before * self.factor))

    def follow(self, choice: Choice) -> None:
        _say(self.said, choice)

    def join(self, other: Rule) -> None:
        assert isinstance(other, Repetition)
        self.said.join(other.said)


class Counts(Rule):
    def __init__(self, cfg: CountPenalty, begun: SearchStart):
        self.cfg, self.said = cfg, RowMemory(begun.prompt[:, :0])

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        said = self.said.rows
        count = torch.zeros_like(logits).scatter_add(1, said, torch.ones_like(said, dtype=logits.dtype))
        return logits - self.cfg.frequency * count - self.cfg.presence * (count > 0)

    def follow(self, choice: Choice) -> None:
        _say(self.said, choice)

    def join(self, other: Rule) -> None:
        assert isinstance(other, Counts)
        self.said.join(other.said)


class NoSecondTime(Rule):
    def __init__(self, cfg: NoRepeat, begun: SearchStart):
        self.size, self.said = cfg.tokens, RowMemory(begun.prompt)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        said = self.said.rows
        if said.shape[1] < self.size:
            return logits
        newest = said[:, said.shape[1] - self.size + 1 :]
        runs = said.unfold(1, self.size, 1)  # (R, L - size + 1, size): all runs of that many tokens
        recurs = (runs[:, :, :-1] == newest[:, None]).all(dim=2)
        ends = runs[:, :, -1]
        lowered = logits.gather(1, ends).masked_fill(recurs, -torch.inf)
        return logits.scatter_reduce(1, ends, lowered, "amin")

    def follow(self, choice: Choice) -> None:
        _say(self.said, choice)

    def join(self, other: Rule) -> None:
        assert isinstance(other, NoSecondTime)
        self.said.join(other.said)


def _say(said: RowMemory, choice: Choice) -> None:
    said.follow(choice)
    said.rows = torch.cat([said.rows, choice.tokens[:, None]], dim=1)


# ---- ending too early, and what must not be said ---------------------------------------------------


@config
class MinimumLength:
    """No answer ends before it has ``tokens``, its end not counted."""

    tokens: NonNegativeInt

    def start(self, begun: SearchStart) -> Rule:
        return NotYet(self.tokens, len(begun.prompt), begun.prompt.device)


@config
class Forbidden:
    """These tokens are never said."""

    tokens: tuple[NonNegativeInt, ...]
    """Ids in the target vocabulary; others are passed over."""

    def start(self, begun: SearchStart) -> Rule:
        return Never(torch.tensor(self.tokens, dtype=torch.long, device=begun.prompt.device))


class NotYet(Rule):
    def __init__(self, tokens: int, rows: int, device: torch.device):
        self.most = tokens  # that any row has to say yet
        self.missing = RowMemory(torch.full((rows,), tokens, device=device))

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        if self.most <= 0:
            return logits
        ranked = logits.clone()
        ranked[:, EOS] = logits[:, EOS].masked_fill(self.missing.rows > 0, -torch.inf)
        return ranked

    def follow(self, choice: Choice) -> None:
        self.missing.follow(choice)
        self.most, self.missing.rows = self.most - 1, self.missing.rows - 1

    def join(self, other: Rule) -> None:
        assert isinstance(other, NotYet)
        self.missing.join(other.missing)
        self.most = max(self.most, other.most)


class Never(Rule):
    def __init__(self, tokens: Int[Tensor, " n"]):
        self.tokens = tokens

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        return logits.index_fill(1, self.tokens[self.tokens < logits.shape[1]], -torch.inf)

    def follow(self, choice: Choice) -> None:
        pass

    def join(self, other: Rule) -> None:
        pass


RuleConfig = Annotated[RepetitionPenalty | CountPenalty | NoRepeat | MinimumLength | Forbidden, OneOf()]
