"""Speculative decoding: guess several tokens cheaply, then let the model check them all in one forward pass.

The strategy and its rules see the same logits as without speculation, one step after the other. After a right guess the
logits are already there. So the answer is that of the plain search: greedily token for token, and, since a draw depends
on seed and step alone (``rng.py``), when sampling too. Leviathan et al. (2023) keep the distribution by rejecting some
guesses and drawing again. Here a draft model draws with the random numbers that the model will draw with. At distance d
between their distributions at least (1 - d) / (1 + d) of its guesses are right, where at most 1 - d could be (Daliri et
al. 2024, arXiv:2408.07978).

A batch advances at once as far as the guesses of all of its rows are right, so this pays for one text, or few.

B sentences, R rows, V vocabulary, S source length, P prompt length, g tokens guessed, L tokens read and emitted so far.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor

from dragoman.checkpoint import checkpoint_at, load_model
from dragoman.config import CheckpointName, OneOf, config
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.rule import RowMemory, TokenMemory
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.session import DecoderSession, arrange
from dragoman.decode.search.strategy import Choice, LengthLimit, Strategy, source_ids
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel, Tokens
from dragoman.text.tokens.tokenizer import EOS

TokenIds = Int[Tensor, "B T"] | Tokens

# ---- drafters -------------------------------------------------------------------------------------


class Drafter(ABC):
    """Predict the next tokens of the rows of one batch."""

    @abstractmethod
    def begin(self, prompt: TokenIds) -> None:
        """Receive the prompt, before the first step."""

    @abstractmethod
    def follow(self, choice: Choice) -> None:
        """Apply a choice; see ``Rule.follow``."""

    @abstractmethod
    def guess(self, count: int) -> Int[Tensor, "R g"]:
        """Return up to ``count`` tokens of each row; none where no guess is worth its cost."""


class PromptLookupDrafter(Drafter):
    """Guess the tokens that followed the last occurrence of the newest ones: names, numbers and phrases recur."""

    def __init__(self, source: TokenIds | None, longest: int, vocab: int):
        self.longest, self.vocab, self.before = longest, vocab, source_ids(source)

    def begin(self, prompt: TokenIds) -> None:
        prompt = _ids(prompt)
        self.history = TokenMemory(prompt if self.before is None else torch.cat([self.before, prompt], dim=1))

    def follow(self, choice: Choice) -> None:
        self.history.append(choice)

    def guess(self, count: int) -> Int[Tensor, "R g"]:
        history = self.history.rows
        R, L = history.shape
        length = torch.zeros(R, L - 1, dtype=torch.long, device=history.device)  # of the match that ends at each token
        agrees = torch.ones_like(length, dtype=torch.bool)
        for back in range(min(self.longest, L - 1)):
            agrees = agrees & (history[:, : L - 1].roll(back, dims=1) == history[:, L - 1 - back, None])
            agrees[:, :back] = False
            length += agrees
        newest = torch.arange(L - 1, device=history.device)
        at = (length * L + newest).argmax(dim=1)  # the longest match, and the newest of those
        if not (length.amax(dim=1) > 0).any():
            return history[:, :0]
        positions = at[:, None] + torch.arange(1, count + 1, device=history.device)
        found = history.gather(1, positions.clamp(max=L - 1))
        return torch.where(found < self.vocab, found, EOS)  # a source may have another vocabulary


class ModelDrafter(Drafter):
    """Guess with a smaller model that has the same vocabulary."""

    def __init__(self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, strategy: Strategy, most: int):
        self.model, self.strategy = model, strategy
        self.state = model.start(source, policy)
        self.state.allow_rewind(most)

    def begin(self, prompt: TokenIds) -> None:
        self.model.decode(prompt, self.state)
        self.unread = TokenMemory(_ids(prompt)[:, :0])

    def follow(self, choice: Choice) -> None:
        arrange(self.state, choice, self.strategy.beams)
        self.unread.append(choice)

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
    """Read guesses along with the chosen tokens, and rewind the state where they were wrong."""

    def __init__(
        self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, beams: int, drafter: Drafter, most: int
    ):
        super().__init__(model, source, policy, beams)
        self.state.allow_rewind(most)
        self.drafter, self.most = drafter, most
        self.forwards = 0
        """Number of forward passes of the model."""

    def first(self, prompt: TokenIds) -> Float[Tensor, "B V"]:
        self.drafter.begin(prompt)
        self.forwards += 1
        logits = super().first(prompt)
        self.guesses = RowMemory(_ids(prompt)[:, :0])  # (R, g): read by the state and not yet confirmed
        self.after = RowMemory(logits[:, None][:, :0])  # (R, g, V): the logits after each of them
        return logits

    def next(self, choice: Choice) -> Float[Tensor, "R V"]:
        arrange(self.state, choice, self.beams)
        for each in (self.drafter, self.guesses, self.after):
            each.follow(choice)
        if self.all_guessed(choice.tokens):
            logits, self.guesses.rows, self.after.rows = (
                self.after.rows[:, 0],
                self.guesses.rows[:, 1:],
                self.after.rows[:, 1:],
            )
            return logits
        self.state.rewind(self.guesses.rows.shape[1])
        guesses = self.drafter.guess(self.budget)
        self.forwards += 1
        logits = self.model.decode(Tokens(torch.cat([choice.tokens[:, None], guesses], dim=1)), self.state)
        self.guesses.rows, self.after.rows = guesses, logits[:, 1:]
        return logits[:, 0]

    def all_guessed(self, tokens: Int[Tensor, " R"]) -> bool:
        """Return whether every row's token was guessed; rows that have ended before their sentence has always count."""
        guesses = self.guesses.rows
        return guesses.shape[1] > 0 and bool(((guesses[:, 0] == tokens) | (tokens == EOS)).all())

    @property
    def budget(self) -> int:
        """Number of tokens that may be guessed; the one chosen before them is still to be read."""
        most = self.model.max_length
        return self.most if most is None else max(0, min(self.most, most - self.state.length - 1))


# ---- the choices -----------------------------------------------------------------------------------


@config
class PromptLookup:
    """Guess the tokens that followed the newest ones earlier in the source, the prompt or the answer.

    The source is used where it is text and both sides share a vocabulary. No other model is needed (Saxena 2023, prompt
    lookup decoding).
    """

    longest: PositiveInt = 3
    """Most tokens compared: the longer the match, the better the guess."""

    def drafter(
        self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, strategy: Strategy, most: int
    ) -> Drafter:
        return PromptLookupDrafter(source, self.longest, model.output.out_features)


@config
class DraftModel:
    """Guess with a smaller model, trained with the same tokenizers."""

    run: str
    """Run directory of the smaller model, or one of its checkpoints."""
    checkpoint: CheckpointName = "best"
    """Checkpoint of that model: best, last, a step, or a checkpoint's name."""

    def drafter(
        self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, strategy: Strategy, most: int
    ) -> Drafter:
        path = checkpoint_at(self.run, self.checkpoint).path.resolve()
        draft = _loaded(path, model.device)
        ours, theirs = model.output.out_features, draft.output.out_features
        if ours != theirs:
            raise ConfigError(
                f"draft.run: {self.run} has {theirs} tokens and the model {ours}: train it with the same tokenizers"
            )
        try:
            return ModelDrafter(draft, source, policy, strategy, most)
        except ValueError as error:
            raise ConfigError(f"draft.run: {self.run}: {error}") from None


@lru_cache(maxsize=1)  # the next batch needs it again; a checkpoint never changes
def _loaded(path: Path, device: torch.device) -> SequenceModel:
    return load_model(path)[0].to(device)


@config
class Speculative:
    """Speculative decoding: the answers of ``search``, sooner where guesses are good."""

    search: Annotated[Greedy | Sample, OneOf()] = Greedy()
    draft: Annotated[PromptLookup | DraftModel, OneOf()] = PromptLookup()
    tokens: Annotated[int, Field(ge=1, le=1000)] = 5
    """Number of tokens guessed at a time."""

    @property
    def size(self) -> int:
        """Return a number of hypotheses so large that every batch holds one text, for which guessing pays."""
        return 1 << 30

    @property
    def nbest(self) -> int:
        return self.search.nbest

    @property
    def draws(self) -> bool:
        return self.search.draws

    @property
    def limit(self) -> LengthLimit:
        return self.search.limit

    def score(self, log_prob: float, length: int) -> float:
        return self.search.score(log_prob, length)

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int]) -> Strategy:
        return self.search.start(limits, device, seeds)

    def session(
        self, model: SequenceModel, source: TokenIds | None, policy: KVPolicy, strategy: Strategy
    ) -> SpeculativeSession:
        drafter = self.draft.drafter(model, source, policy, strategy, self.tokens)
        return SpeculativeSession(model, source, policy, strategy.beams, drafter, self.tokens)
