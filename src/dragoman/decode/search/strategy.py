"""What a way of searching is: it sees the logits of a step and says which hypotheses go on, and with which tokens.

N sentences still being translated, W hypotheses of each, R = N x W rows, V vocabulary.
"""

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from dragoman.config import config
from dragoman.decode.search.ranking import first_largest
from dragoman.errors import CheckpointError, ConfigError
from dragoman.model.interface import SequenceModel
from dragoman.text.tokens.tokenizer import EOS


@dataclass(frozen=True)
class Hypothesis:
    """One finished translation, in ids."""

    tokens: tuple[int, ...]
    """Ends with EOS."""
    token_log_probs: tuple[float, ...]
    """Natural logarithm of each token's probability, given those before it and the source."""
    log_prob: float
    """Their sum."""
    score: float
    """What hypotheses of one source are ranked by: ``log_prob``, corrected for length as the search was told to."""
    truncated: bool
    """The length limit ended it; the model would have gone on."""


@config
class LengthLimit:
    """No translation is longer than ``min(tokens, ratio x source tokens + extra)``, its end included."""

    tokens: int = 1000
    ratio: float = 3.0
    extra: int = 20

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.ratio < 0 or self.extra < 1:
            raise ConfigError("a length limit needs tokens and extra of at least 1 and a ratio of at least 0")

    def of(self, source_tokens: int) -> int:
        return min(self.tokens, math.floor(self.ratio * source_tokens) + self.extra)


class Choice(NamedTuple):
    """How the batch goes on, in the order in which it is to be applied."""

    keep: Int[Tensor, " N"] | None
    """The sentences that go on; the others have their answer. None: all of them."""
    rows: Int[Tensor, " R"] | None
    """Of the kept rows, the one that each row continues. None: each continues itself."""
    tokens: Int[Tensor, " R"]
    """The next token of each row."""


class Strategy(ABC):
    """One batch on its way from the first token to its hypotheses."""

    beams: int = 1
    """Rows of each sentence, from the second step on; at the first it has one."""
    sentence: Int[Tensor, " N"]
    """Those under way, by their number in the batch; only strategies that let others ``join`` tell."""

    @abstractmethod
    def step(self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"]) -> Choice | None:
        """Take the logits that follow the tokens chosen last; None once every sentence has its hypotheses.

        ``ranked`` are the same as rules have changed them, or the same: tokens are chosen by these, and the
        log-probabilities in ``results`` are those of ``logits``.
        """

    def watching(self, model: SequenceModel, source: Int[Tensor, "B S"] | None) -> AbstractContextManager[object]:
        """What is to be in force while the model reads a step's tokens and the strategy takes the logits."""
        return nullcontext()

    def guess(self, logits: Float[Tensor, "R V"], ahead: int) -> Int[Tensor, " _"]:
        """What a row would say, were these the logits ``ahead`` steps after the next one; changes nothing."""
        return first_largest(logits[:, EOS:]) + EOS  # padding and begin-of-sentence lie below EOS

    def join(self, other: "Strategy") -> None:
        """Take in the sentences of ``other``, behind these and those before them, as if both had made their last step
        together; they need not have made as many."""
        raise NotImplementedError(f"{type(self).__name__} keeps the batch that it began with: see batching.py")

    @abstractmethod
    def results(self) -> list[list[Hypothesis]]:
        """The hypotheses of each sentence of the batch, best first.

        Raises:
            CheckpointError: the model's logits are not numbers.
        """


def not_numbers() -> CheckpointError:
    return CheckpointError(
        "the model answers with NaN or infinity: its weights are damaged or its training diverged; use another one"
    )


def nothing_allowed() -> ConfigError:
    return ConfigError("search: the rules forbid everything that a translation could go on with: allow it more")
