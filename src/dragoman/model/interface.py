"""What training and decoding need of a model, whatever its family.

B batch, T target length, S source length, D width, V target vocabulary, N sentences, R rows.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.linear import Linear
from dragoman.model.positions.tokens import PAD, Frames, Tokens

__all__ = ["PAD", "DecodingState", "EncoderModel", "Frames", "SequenceModel", "Tokens"]


class DecodingState(ABC):
    """All that is remembered of a batch while decoding: the encoded source and every layer's state.

    Rows come in groups of ``beams``, one group a sentence; a fresh state has one row for each sentence.
    """

    beams: int = 1
    """Rows of each sentence."""

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

    @abstractmethod
    def join(self, other: "DecodingState") -> None:
        """Take in the sentences of ``other``, behind these, as if all had been one batch. They may have seen another
        number of tokens, but some; and both have as many ``beams``. ``other`` is used up."""

    def allow_rewind(self, tokens: int) -> None:
        """From now on remember what it takes to ``rewind`` up to so many tokens."""
        raise _cannot_rewind(self)

    def rewind(self, tokens: int) -> None:
        """Forget the newest ``tokens`` of every row, as if they had never come.

        Raises:
            ConfigError: this state, or a cache in it, cannot; see ``state.LayerState.rewind``.
        """
        raise _cannot_rewind(self)


def _cannot_rewind(state: DecodingState) -> ConfigError:
    return ConfigError(
        f"{type(state).__name__} cannot take tokens back, as speculative decoding has to: search without"
    )


class EvaluableModel(nn.Module):
    """Shared by models that write and models that read."""

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """In evaluation mode inside the block; as it was after it."""
        training = self.training
        if training:  # a walk over all modules, which for one short text is a tenth of the work
            self.eval()
        try:
            yield
        finally:
            if training:
                self.train()


class SequenceModel(EvaluableModel, ABC):
    """Predicts each next token of a target, given those before it and, for most, a source: ids (B, S) or whatever else
    an ``EncoderModel`` may be given."""

    output: Linear
    """Hidden vectors to logits, but for ``logit_cap``."""
    logit_cap: float | None = None
    """Logits become cap tanh(logits / cap); None for as they are."""

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Longest text it can take on either side; None for no limit."""

    @abstractmethod
    def hidden(
        self, target: Int[Tensor, "B T"] | Tokens, source: Tensor | Tokens | Frames | None = None
    ) -> Float[Tensor, "B T D"]:
        """What ``logits`` takes; position t has seen ``target[:, :t+1]`` and the source.

        Raises:
            DataError: a text longer than ``max_length``.
            ValueError: a source for a model that takes none, or none for one that does.
        """

    @abstractmethod
    def start(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = DEFAULT) -> DecodingState:
        """Encode the source, once; nothing of the target has been seen. Models without a source take None."""

    @abstractmethod
    def decode(self, tokens: Int[Tensor, "B T"] | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        """Logits after each of ``tokens``, which follow those that ``state`` has seen; ``state`` moves on. A single id
        is never padding. Tokens that see ahead of themselves (visibility.Prefix) see as far as these go."""

    def forward(
        self, target: Int[Tensor, "B T"] | Tokens, source: Tensor | Tokens | Frames | None = None
    ) -> Float[Tensor, "B T V"]:
        """Next-token logits at every position of ``target``."""
        return self.logits(self.hidden(target, source))

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores of each entry of the vocabulary."""
        return self.capped(self.output(hidden))

    def capped(self, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        return logits if self.logit_cap is None else torch.tanh(logits / self.logit_cap) * self.logit_cap


class EncoderModel(EvaluableModel, ABC):
    """Says something of a whole input, and generates nothing.

    Inputs are ids, ``Tokens``, images (B, channels, height, width), or ``Frames``: each model reads one of these.
    """

    head: nn.Module
    """Hidden vectors, and which of them are real, to what the model is for: see heads.py."""

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Longest text it can take; None for no limit."""

    @abstractmethod
    def encode(self, inputs: Tensor | Tokens | Frames) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"] | None]:
        """A vector for each token, patch or frame, and False on those that are padding (None when none is).

        Raises:
            DataError: a text longer than ``max_length``, an image of another size, frames of another width.
        """

    def hidden(self, inputs: Tensor | Tokens | Frames) -> Float[Tensor, "B T D"]:
        return self.encode(inputs)[0]

    def forward(self, inputs: Tensor | Tokens | Frames) -> Tensor:
        """What the head makes of the hidden vectors."""
        return self.head(*self.encode(inputs))
