"""What may be said next: rules between the model's logits and the search that chooses among them.

A rule sees the logits of each step before the strategy does and may change them: minus infinity forbids a token. The
strategy chooses by the changed ones; the log-probabilities it reports stay the model's own.

N sentences still being translated, W hypotheses of each, R = N x W rows, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from dragoman.decode.strategy import Choice


class Rule(ABC):
    """One rule for one batch. What it remembers belongs to rows, and moves with them."""

    @abstractmethod
    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        """The logits to choose by. ``logits`` itself must stay as it is; it may be what is returned."""

    @abstractmethod
    def follow(self, choice: Choice) -> None:
        """The batch goes on like this: keep the rows of ``choice.keep``, reorder them, note their newest tokens.

        Rows of a sentence multiply between the first step and the second: there ``choice.tokens`` has W for each row
        seen so far, and ``choice.rows`` is None.
        """


class Rules(Rule):
    """Several, one after the other; none of them is one too."""

    def __init__(self, rules: Sequence[Rule] = ()):
        self.rules = list(rules)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        for rule in self.rules:
            logits = rule.apply(logits)
        return logits

    def follow(self, choice: Choice) -> None:
        for rule in self.rules:
            rule.follow(choice)
