"""Rules on repetition, on the minimum length, and on forbidden tokens.

Each is a config class; ``start`` makes the rule for a batch. They work with every search, in the order they are given.

B sentences of a batch, R rows, V vocabulary, P prompt length, L tokens emitted so far, the prompt included.
"""

from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor

from dragoman.config import OneOf, choices, config
from dragoman.decode.arguments import check_items
from dragoman.decode.constraints.first_token import FirstToken, TokenId
from dragoman.decode.search.rule import RowMemory, Rule, SearchStart, TokenMemory
from dragoman.decode.search.strategy import LONGEST_LIMIT, Choice
from dragoman.text.tokens.tokenizer import EOS

Penalty = Annotated[float, Field(ge=-1e4, le=1e4)]
"""Amount by which logits are lowered; a negative one raises them."""
TokenCount = Annotated[int, Field(ge=0, lt=LONGEST_LIMIT)]

# ---- repetition ------------------------------------------------------------------------------------


@config
class RepetitionPenalty:
    """Divide positive logits of tokens emitted before by ``factor``, and multiply negative ones by it.

    From CTRL (Keskar et al. 2019, section 4.1). A prompt counts as emitted.
    """

    factor: Annotated[float, Field(ge=1e-4, le=1e4)] = 1.2
    """Strength: above 1 repetition grows rarer, below 1 more frequent."""

    def start(self, search_start: SearchStart) -> Rule:
        return Repetition(self, search_start)


@config
class CountPenalty:
    """Lower logits by ``presence`` for a token that the answer contains, and by ``frequency`` for each occurrence.

    These are the penalties of today's chat interfaces. A prompt does not count.
    """

    presence: Penalty = 0.0
    frequency: Penalty = 0.0

    def start(self, search_start: SearchStart) -> Rule:
        return Counts(self, search_start)


@config
class NoRepeat:
    """Emit no run of ``tokens`` tokens twice (Paulus et al. 2017, section 2.5, for three); a prompt counts."""

    tokens: PositiveInt = 3

    def start(self, search_start: SearchStart) -> Rule:
        return NoRepeatNgramRule(self, search_start)


class Repetition(Rule):
    """The rule of ``RepetitionPenalty`` for one batch."""

    def __init__(self, cfg: RepetitionPenalty, search_start: SearchStart):
        self.factor, self.emitted = cfg.factor, TokenMemory(search_start.prompt)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        before = logits.gather(1, self.emitted.rows)
        return logits.scatter(1, self.emitted.rows, torch.where(before > 0, before / self.factor, before * self.factor))

    def follow(self, choice: Choice) -> None:
        self.emitted.append(choice)

    def join(self, other: Rule) -> None:
        assert isinstance(other, Repetition)
        self.emitted.join(other.emitted)


class Counts(Rule):
    """The rule of ``CountPenalty`` for one batch."""

    def __init__(self, cfg: CountPenalty, search_start: SearchStart):
        self.cfg, self.emitted = cfg, TokenMemory(search_start.prompt[:, :0])

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        emitted = self.emitted.rows
        count = torch.zeros_like(logits).scatter_add(1, emitted, torch.ones_like(emitted, dtype=logits.dtype))
        return logits - self.cfg.frequency * count - self.cfg.presence * (count > 0)

    def follow(self, choice: Choice) -> None:
        self.emitted.append(choice)

    def join(self, other: Rule) -> None:
        assert isinstance(other, Counts)
        self.emitted.join(other.emitted)


class NoRepeatNgramRule(Rule):
    """The rule of ``NoRepeat`` for one batch."""

    def __init__(self, cfg: NoRepeat, search_start: SearchStart):
        self.size, self.emitted = cfg.tokens, TokenMemory(search_start.prompt)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        emitted = self.emitted.rows
        if emitted.shape[1] < self.size:
            return logits
        newest = emitted[:, emitted.shape[1] - self.size + 1 :]
        runs = emitted.unfold(1, self.size, 1)  # (R, L - size + 1, size): all runs of that many tokens
        recurs = (runs[:, :, :-1] == newest[:, None]).all(dim=2)
        ends = runs[:, :, -1]
        lowered = logits.gather(1, ends).masked_fill(recurs, -torch.inf)
        return logits.scatter_reduce(1, ends, lowered, "amin")

    def follow(self, choice: Choice) -> None:
        self.emitted.append(choice)

    def join(self, other: Rule) -> None:
        assert isinstance(other, NoRepeatNgramRule)
        self.emitted.join(other.emitted)


# ---- minimum length, and forbidden tokens ----------------------------------------------------------


@config
class MinimumLength:
    """Let no answer end before it has ``tokens`` tokens, its end not counted."""

    tokens: TokenCount

    def start(self, search_start: SearchStart) -> Rule:
        return MinimumLengthRule(self.tokens, search_start)


@config
class Forbidden:
    """Never emit these tokens."""

    tokens: tuple[TokenId, ...]
    """Ids in the target vocabulary; unknown ones are ignored."""

    def start(self, search_start: SearchStart) -> Rule:
        return ForbiddenTokensRule(torch.tensor(self.tokens, dtype=torch.long, device=search_start.prompt.device))


class MinimumLengthRule(Rule):
    """The rule of ``MinimumLength`` for one batch."""

    def __init__(self, tokens: int, search_start: SearchStart):
        self.min_tokens = self.longest_wait = tokens  # most tokens that any row must still emit
        rows, device = len(search_start.prompt), search_start.prompt.device
        self.missing = RowMemory(torch.full((rows,), tokens, device=device))
        self.ends = torch.tensor([EOS, *search_start.ends], device=device)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        if self.longest_wait <= 0:
            return logits
        ends = self.ends[self.ends < logits.shape[1]]  # unknown ones end nothing
        ended = logits.index_select(1, ends).masked_fill(self.missing.rows[:, None] > 0, -torch.inf)
        return logits.index_copy(1, ends, ended)

    def follow(self, choice: Choice) -> None:
        self.missing.follow(choice)
        self.longest_wait, self.missing.rows = self.longest_wait - 1, self.missing.rows - 1

    def join(self, other: Rule) -> None:
        assert isinstance(other, MinimumLengthRule)
        self.missing.join(other.missing)
        self.longest_wait = max(self.longest_wait, other.longest_wait)


class ForbiddenTokensRule(Rule):
    """The rule of ``Forbidden`` for one batch."""

    def __init__(self, tokens: Int[Tensor, " n"]):
        self.tokens = tokens

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        return logits.index_fill(1, self.tokens[self.tokens < logits.shape[1]], -torch.inf)

    def follow(self, choice: Choice) -> None:
        pass

    def join(self, other: Rule) -> None:
        pass


RuleConfig = Annotated[RepetitionPenalty | CountPenalty | NoRepeat | MinimumLength | Forbidden | FirstToken, OneOf()]


def check_rules(given: Any) -> list[RuleConfig]:
    """Return the rules that a program gives.

    Raises:
        TypeError: they are no list of rules.
    """
    return check_items(given, "rules", what="rules such as NoRepeat(tokens=3)", kinds=tuple(choices(RuleConfig)))
