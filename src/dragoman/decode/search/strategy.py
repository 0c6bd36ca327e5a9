"""Search strategies: a strategy reads the logits of a step and chooses which hypotheses go on, with which tokens.

N sentences still being translated, W hypotheses of each, R = N x W rows, V vocabulary.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.config import config
from dragoman.decode.search.ranking import first_largest
from dragoman.errors import CheckpointError, ConfigError, UserError
from dragoman.model.inference.slots import Slots, StepKernel
from dragoman.model.interface import SequenceModel, Tokens
from dragoman.text.tokens.tokenizer import EOS


@dataclass(frozen=True)
class Hypothesis:
    """One finished translation, in ids."""

    tokens: tuple[int, ...]
    """Ends with EOS, or another token that ends an answer; in continuations that were stopped or truncated, without."""
    token_log_probs: tuple[float, ...]
    """Natural logarithm of each token's probability, given those before it and the source."""
    log_prob: float
    """Their sum."""
    score: float
    """Value that hypotheses of one source are ranked by: ``log_prob``, corrected for length by the search."""
    truncated: bool
    """True where the length limit ended it; the model would have gone on, or could have."""


Outcome = list[Hypothesis] | UserError
"""End of the search of a sentence: its hypotheses, best first, or the reason that it has none."""


def all_found(outcomes: Iterable[Outcome]) -> list[list[Hypothesis]]:
    """Return the hypotheses of every sentence.

    Raises:
        UserError: the reason of the first sentence that has none.
    """
    found = list[list[Hypothesis]]()
    for outcome in outcomes:
        if isinstance(outcome, UserError):
            raise outcome
        found.append(outcome)
    return found


LONGEST_LIMIT = 10**6
"""Most tokens that a limit may allow."""


@config
class LengthLimit:
    """Longest translation: ``min(tokens, ratio x source tokens + extra)`` tokens, its end included."""

    tokens: int = 1000
    ratio: float = 3.0
    extra: int = 20

    def __post_init__(self) -> None:
        if not (1 <= self.tokens <= LONGEST_LIMIT and 0 <= self.ratio <= LONGEST_LIMIT and self.extra >= 1):
            raise ConfigError(
                f"a length limit needs tokens from 1 to {LONGEST_LIMIT:,}, a ratio from 0 to as many, and an extra of "
                "at least 1"
            )

    def of(self, source_tokens: int) -> int:
        """Return the limit for a source of this many tokens."""
        return min(self.tokens, math.floor(self.ratio * source_tokens) + self.extra)


class Choice(NamedTuple):
    """The continuation of a batch. Its fields are applied in this order."""

    keep: Int[Tensor, " N"] | None
    """Sentences that go on; the others have their answer. None: all of them."""
    rows: Int[Tensor, " R"] | None
    """Row, among the kept ones, that each row continues. None: each continues itself."""
    tokens: Int[Tensor, " R"]
    """Next token of each row."""


@lru_cache
def end_tokens(ends: tuple[int, ...], device: torch.device) -> Int[Tensor, " n"]:
    """Return the tokens as a tensor, the same one for every step."""
    return torch.tensor(ends, device=device)


def source_ids(source: Tensor | Tokens | None) -> Int[Tensor, "B S"] | None:
    """Return the ids that a model reads as its source; None where there is none, and for images and frames."""
    ids = source.ids if isinstance(source, Tokens) else source
    return None if ids is None or ids.ndim != 2 or ids.is_floating_point() else ids


class EmittedToken(NamedTuple):
    """A token of the last step."""

    row: int
    """Its row among all rows of the batch."""
    token: int
    log_prob: float
    logits_row: int
    """Row of the logits that it was chosen by."""


class Walk(NamedTuple):
    """Several steps that were made at once."""

    steps: int
    choice: Choice | None
    """The last one; None once every sentence has its hypotheses."""


class Strategy(ABC):
    """The search of one batch, from the first token to its hypotheses."""

    beams: int = 1
    """Rows of each sentence from the second step on. At the first step each sentence has one."""
    sentence: Int[Tensor, " N"]
    """Indices in the batch of the sentences still being translated; only strategies that can ``join`` set it."""
    sentences: int
    """Number of sentences that the batch has had so far; only strategies that can ``join`` set it."""
    ends: tuple[int, ...] = (EOS,)
    """Tokens that end an answer."""
    open_ended = False
    """True where the limit ends an answer after its last token; False where that token is EOS."""

    def continue_text(self, ends: Sequence[int]) -> None:
        """Search continuations: ``ends`` end an answer besides EOS, and the limit ends one that could go on."""
        self.ends, self.open_ended = (EOS, *ends), True

    def is_end(self, token: Int[Tensor, "*R"]) -> Bool[Tensor, "*R"]:
        """Return which of these tokens end an answer."""
        if len(self.ends) == 1:
            return token == EOS
        return torch.isin(token, end_tokens(self.ends, token.device))

    @abstractmethod
    def step(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], complete: Bool[Tensor, " R"] | None = None
    ) -> Choice | None:
        """Take the logits that follow the tokens chosen last; return None once every sentence has its hypotheses.

        ``ranked`` are the logits after the rules, or ``logits`` itself where no rule changed them. Tokens are chosen by
        ``ranked``; the log-probabilities in ``results`` are those of ``logits``. In the rows of ``complete`` EOS alone
        can follow, with probability 1, and it is no part of the answer.
        """

    def forward_context(self, model: SequenceModel, source: Tensor | None) -> AbstractContextManager[object]:
        """Return the context manager entered around the forward pass and the strategy's step."""
        return nullcontext()

    def walk(self, model: StepKernel, slots: Slots, token: Int[Tensor, " R"], most: int, few: int) -> Walk:
        """Make several steps at once, and let the model read before each; they equal as many calls of ``step``.

        Only searches in ``search.WALKING`` have this.

        Args:
            model: what reads the tokens.
            slots: its state, which follows the search.
            token: the tokens to read first.
            most: most steps.
            few: it ends when no more than so many sentences are left.
        """
        raise NotImplementedError(f"{type(self).__name__} makes one step at a time")

    def guess(self, logits: Float[Tensor, "R V"], ahead: int) -> Int[Tensor, " _"]:
        """Predict each row's token from ``logits``, taken as those ``ahead`` steps after the next one.

        The state stays as it is.
        """
        return first_largest(logits[:, EOS:]) + EOS  # padding and begin-of-sentence lie below EOS

    def join(self, other: "Strategy") -> None:
        """Append the sentences of ``other``, as if both had made their last step together.

        The two may have made different numbers of steps.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps the batch that it began with: see batching.py")

    def take_finished(self) -> dict[int, Outcome]:
        """Return the outcome of the sentences that are done, by their index in the batch.

        They are forgotten: an endless batch, which sentences join and leave, takes them after each step, and never asks
        for ``results``. A sentence without hypotheses is no matter of the others, which are of other callers. Only
        strategies that can ``join`` have this.
        """
        raise NotImplementedError(f"{type(self).__name__} tells its results at the end of the batch")

    def newest(self, rows: int) -> list["EmittedToken"]:
        """Return the tokens of the last step, whose logits had so many rows.

        Only searches whose tokens are final as they are chosen have this.
        """
        raise NotImplementedError(f"{type(self).__name__} may still change its tokens")

    def end_early(self, sentences: Sequence[int]) -> None:
        """Let these sentences of the batch end at the next step, as if it were their limit."""
        raise NotImplementedError(f"{type(self).__name__} ends no sentence early")

    @abstractmethod
    def results(self) -> list[list[Hypothesis]]:
        """Return the hypotheses of each sentence of the batch, best first.

        Raises:
            CheckpointError: the model's logits are not numbers.
            ConfigError: the rules left a sentence without a token to choose.
        """


def not_numbers() -> CheckpointError:
    """Return the error for logits that are NaN or infinite."""
    return CheckpointError(
        "the model answers with NaN or infinity: its weights are damaged or its training diverged; use another one"
    )


def nothing_allowed() -> ConfigError:
    """Return the error for rules that leave no token to choose."""
    return ConfigError("search: the rules forbid every possible continuation: relax or remove some of them")
