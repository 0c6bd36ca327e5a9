"""What training and decoding need of a model, whatever its family, and the union of families.

B batch, T target length, S source length, D width, V target vocabulary, R rows.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dragoman.model.state import KVPolicy, growing

PAD = 0
"""The id of padding in every vocabulary."""


class Tokens(NamedTuple):
    """Ids with all that may be said about them. Where a model takes ids alone, padding is told by its id."""

    ids: Int[Tensor, "B T"]
    keep: Bool[Tensor, "B T"] | None = None
    """False on padding; None when nothing is padded."""
    segment: Int[Tensor, "B T"] | None = None
    """Which of several texts packed into a row; positions start anew in each."""
    field: Int[Tensor, "B T"] | None = None
    """Part of a structured input: see visibility.Structural and visibility.Prefix."""


class DecodingState(ABC):
    """All that is remembered of a batch while decoding: the encoded source and every layer's state.

    Rows come in groups of ``beams``, one group a sentence; a fresh state has one row for each sentence.
    """

    beams: int = 1

    @property
    @abstractmethod
    def length(self) -> int:
        """Target tokens seen so far."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held, the encoded source included."""

    @abstractmethod
    def expand(self, beams: int) -> None:
        """Give each sentence ``beams`` rows, all with the same past."""

    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Row i goes on from row ``rows[i]`` of the same sentence: beam search's one demand."""

    @abstractmethod
    def select(self, sentences: Int[Tensor, " N"]) -> None:
        """Keep these sentences, in this order, with all their rows."""


class SequenceModel(nn.Module, ABC):
    """Predicts each next token of a target, given those before it and, for most, a source."""

    output: nn.Linear
    """Hidden vectors to logits."""

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Longest text it can take on either side; None for no limit."""

    @abstractmethod
    def hidden(
        self, target: Int[Tensor, "B T"] | Tokens, source: Int[Tensor, "B S"] | Tokens | None = None
    ) -> Float[Tensor, "B T D"]:
        """What ``output`` turns into logits; position t has seen ``target[:, :t+1]`` and the source."""

    @abstractmethod
    def start(self, source: Int[Tensor, "B S"] | Tokens | None, policy: KVPolicy = growing) -> DecodingState:
        """Encode the source, once; nothing of the target has been seen. Without a source, the batch forms later."""

    @abstractmethod
    def decode(self, tokens: Int[Tensor, "B T"], state: DecodingState) -> Float[Tensor, "B T V"]:
        """Logits after each of ``tokens``, which follow those that ``state`` has seen; ``state`` moves on."""

    def forward(
        self, target: Int[Tensor, "B T"] | Tokens, source: Int[Tensor, "B S"] | Tokens | None = None
    ) -> Float[Tensor, "B T V"]:
        """Next-token logits at every position of ``target``."""
        return self.output(self.hidden(target, source))
