"""Speculative decoding: guess several tokens cheaply, then let the model check them all in one forward.

The strategy and its rules see the same logits as ever, one step after the other; only that those after a right guess
are there already. So the answer is that of the plain search: greedily token for token, and, since a draw depends on
seed and step alone (``chance.py``), when sampling too. Leviathan et al. (2023) keep the distribution by throwing some
guesses away and drawing anew; here a draft model draws with the random numbers that the model will draw with, so that
at distance d of their distributions at least (1 - d) / (1 + d) of its guesses are right, where at most 1 - d could be
(Daliri et al. 2024, arXiv:2408.07978).

A batch goes as far at once as the guesses of all of its rows are right, so this pays for one text, or few.

B sentences, R rows, V vocabulary, S source length, P prompt length, g tokens guessed, L tokens read and said so far.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor

from dragoman.checkpoint import RunDirectory, load_model
from dragoman.config import OneOf, config
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.rule import RowMemory
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.session import DecoderSession, arrange
from dragoman.decode.search.strategy import Choice, LengthLimit, Strategy
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel, Tokens
from dragoman.text.tokens.tokenizer import EOS

TokenIds = Int[Tensor, "B T"] | Tokens

# ---- who guesses -----------------------------------------------------------------------------------


class Guesser(ABC):
    """Guesses what the rows of one batch say next."""

    @abstractmethod
    def begin(self, prompt: TokenIds) -> None: ...

    @abstractmethod
    def follow(self, choice: Choice) -> None:
        """As ``Rule.follow``."""

    @abstractmethod
    def guess(self, count: int) -> Int[Tensor, "R g"]:
        """Up to ``count`` tokens of each row; none where nothing is worth a guess."""


class LookUp(Guesser):
    """What followed the last time the newest tokens were read or said: names, numbers and phrases recur."""

    def __init__(self, source: TokenIds | None, longest: int, vocab: int):
        self.longest, self.vocab = longest, vocab
        self.before = None if source is None else _ids(source)

    def begin(self, prompt: TokenIds) -> None:
        prompt = _ids(prompt)
        self.said = RowMemory(prompt if self.before is None else torch.cat([self.before, prompt], dim=1))

    def follow(self, choice: Choice) -> None:
        self.said.follow(choice)
        self.said.rows = torch.cat([self.said.rows, choice.tokens[:, None]], dim=1)

    def guess(self, count: int) -> Int[Tensor, "R g"]:
        said = self.said.rows
        R, L = said.shape
        length = torch.zeros(R, L - 1, dtype=torch.long, device=said.device)  # of the run that ends there and ends all
        agrees = torch.ones_like(length, dtype=torch.bool)
        for back in range(min(self.longest, L - 1)):
            agrees = agrees & (said[:, : L - 1].roll(back, dims=1) == said[:, L - 1 - back, None])
            agrees[:, :back] = False
            length += agrees
        newest = torch.arange(L - 1, device=said.device)
        at = (length * L + newest).argmax(dim=1)  # the longest run, and the newest of those
        if not (length.amax(dim=1) > 0).any():
            return said[:, :0]
        following = at[:, None] + torch.arange(1, count + 1, device=said.device)
        found = said.gather(1, following.clamp(max=L - 1))
        return torch.where(found < self.vocab, found, EOS)  # a source may have another vocabulary


class Draft(Guesser):
    """A smaller model with the same vocabulary says what it would say."""

    def __init__(self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, strategy: Strategy, most: int):
        self.model, self.strategy = model, strategy
        self.state = model.start(source, policy)
        self.state.allow_rewind(most)

    def begin(self, prompt: TokenIds) -> None:
        self.model.decode(prompt, self.state)
        self.unread = RowMemory(_ids(prompt)[:, :0])

    def follow(self, choice: Choice) -> None:
        arrange(self.state, choice, self.strategy.beams)
        self.unread.follow(choice)
        self.unread.rows = torch.cat([self.unread.rows, choice.tokens[:, None]], dim=1)

    def guess(self, count: int) -> Int[Tensor, "R g"]:
        unread = self.unread.rows
        if self.model.max_length is not None:
            count = min(count, self.model.max_length - self.state.length - unread.shape[1] + 1)
        if count < 1:
            return unread[:, :0]
        logits, guesses = self.model.decode(Tokens(unread), self.state)[:, -1], []
        for ahead in range(count):
            if ahead:
                logits = self.model.decode(guesses[-1][:, None], self.state)[:, -1]
            guesses.append(self.strategy.guess(logits, ahead))
        self.state.rewind(count - 1)
        self.unread.rows = unread[:, :0]
        return torch.stack(guesses, dim=1)


def _ids(given: TokenIds) -> Int[Tensor, "B T"]:
    return given.ids if isinstance(given, Tokens) else given


# ---- reading ahead ---------------------------------------------------------------------------------


class SpeculativeSession(DecoderSession):
    """Reads guesses along with what was chosen, and takes them back where they were wrong."""

    def __init__(
        self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, beams: int, guesser: Guesser, most: int
    ):
        super().__init__(model, source, policy, beams)
        self.state.allow_rewind(most)
        self.guesser, self.most = guesser, most
        self.forwards = 0
        """How often the model was asked."""

    def first(self, prompt: TokenIds) -> Float[Tensor, "B V"]:
        self.guesser.begin(prompt)
        self.forwards += 1
        logits = super().first(prompt)
        self.guesses = RowMemory(_ids(prompt)[:, :0])  # (R, g): that the state has read and nobody has confirmed
        self.after = RowMemory(logits[:, None][:, :0])  # (R, g, V): the logits after each of them
        return logits

    def next(self, choice: Choice) -> Float[Tensor, "R V"]:
        arrange(self.state, choice, self.beams)
        for each in (self.guesser, self.guesses, self.after):
            each.follow(choice)
        if self.guessed(choice.tokens):
            logits, self.guesses.rows, self.after.rows = (
                self.after.rows[:, 0],
                self.guesses.rows[:, 1:],
                self.after.rows[:, 1:],
            )
            return logits
        self.state.rewind(self.guesses.rows.shape[1])
        guesses = self.guesser.guess(self.room)
        self.forwards += 1
        logits = self.model.decode(Tokens(torch.cat([choice.tokens[:, None], guesses], dim=1)), self.state)
        self.guesses.rows, self.after.rows = guesses, logits[:, 1:]
        return logits[:, 0]

    def guessed(self, tokens: Int[Tensor, " R"]) -> bool:
        """Whether every row says what was guessed; rows that have ended, while others of their sentence go on, do."""
        guesses = self.guesses.rows
        return guesses.shape[1] > 0 and bool(((guesses[:, 0] == tokens) | (tokens == EOS)).all())

    @property
    def room(self) -> int:
        """Tokens that may be guessed; the one chosen before them is still to be read."""
        most = self.model.max_length
        return self.most if most is None else max(0, min(self.most, most - self.state.length - 1))


# ---- the choices -----------------------------------------------------------------------------------


@config
class PromptLookup:
    """Guess what followed the newest tokens where they stood before, in the source, the prompt or the answer; the
    source counts where both sides share a vocabulary. Needs no other model (Saxena 2023, prompt lookup decoding)."""

    longest: PositiveInt = 3
    """Tokens compared at most: where more of them agree, the guess is better."""

    def guesser(
        self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, strategy: Strategy, most: int
    ) -> Guesser:
        return LookUp(source, self.longest, model.output.out_features)


@config
class DraftModel:
    """Guess what a smaller model says, trained with the same tokenizers."""

    run: str
    """Its run directory."""
    checkpoint: str = "best"

    def guesser(
        self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, strategy: Strategy, most: int
    ) -> Guesser:
        path = RunDirectory.open(self.run).find(self.checkpoint).path.resolve()
        draft = _loaded(path, model.device)
        ours, theirs = model.output.out_features, draft.output.out_features
        if ours != theirs:
            raise ConfigError(
                f"draft.run: {self.run} has {theirs} tokens and the model {ours}: train it with the same tokenizers"
            )
        try:
            return Draft(draft, source, policy, strategy, most)
        except ValueError as error:
            raise ConfigError(f"draft.run: {self.run}: {error}") from None


@lru_cache(maxsize=1)  # for the next batch: a checkpoint never changes
def _loaded(path: Path, device: torch.device) -> SequenceModel:
    return load_model(path)[0].to(device)


@config
class Speculative:
    """The same answers as ``search`` gives, sooner where guesses are good."""

    search: Annotated[Greedy | Sample, OneOf()] = Greedy()
    draft: Annotated[PromptLookup | DraftModel, OneOf()] = PromptLookup()
    tokens: PositiveInt = 5
    """Guessed at a time."""

    @property
    def size(self) -> int:
        """So many hypotheses that batches are of one text: see above."""
        return 1 << 30

    @property
    def nbest(self) -> int:
        return self.search.nbest

    @property
    def limit(self) -> LengthLimit:
        return self.search.limit

    def score(self, log_prob: float, length: int) -> float:
        return self.search.score(log_prob, length)

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int]) -> Strategy:
        return self.search.start(limits, device, seeds)

    def reader(
        self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, strategy: Strategy
    ) -> SpeculativeSession:
        guesser = self.draft.guesser(model, source, policy, strategy, self.tokens)
        return SpeculativeSession(model, source, policy, strategy.beams, guesser, self.tokens)
