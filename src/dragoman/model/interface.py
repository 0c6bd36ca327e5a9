"""Interfaces between models and the rest: training and decoding know a model by these alone, whatever its family.

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

__all__ = ["PAD", "DecodingState", "EncoderModel", "Frames", "SequenceConfig", "SequenceModel", "Tokens"]


class DecodingState(ABC):
    """State of a batch while decoding: the encoded source and every layer's cache.

    Each sentence has ``beams`` successive rows; a new state has one row for each sentence.
    """

    beams: int = 1
    """Number of rows of each sentence."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Number of target tokens so far."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held, the encoded source included."""

    @abstractmethod
    def expand(self, beams: int) -> None:
        """Copy the one row of each sentence to ``beams`` rows."""

    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Continue row i from row ``rows[i]``, which must be of the same sentence: used by beam search."""

    @abstractmethod
    def select(self, sentences: Int[Tensor, " N"]) -> None:
        """Keep these sentences, in this order, with all their rows."""

    @abstractmethod
    def join(self, other: "DecodingState") -> None:
        """Append the sentences of ``other``, as if all had been one batch from the start.

        Both must have the same ``beams`` and at least one target token; the numbers of tokens may differ. ``other``
        must not be used afterwards.
        """

    def fork(self, tokens: int) -> "DecodingState | None":
        """Return a state that has read only the first ``tokens``, and shares them with this one; both may read on.

        None where that is not possible: for several rows, padding, or a state that keeps no tokens apart.
        """
        return None

    def allow_rewind(self, tokens: int) -> None:
        """Keep what is needed to ``rewind`` up to ``tokens`` tokens, from now on.

        Raises:
            ConfigError: this state cannot rewind.
        """
        raise _cannot_rewind(self)

    def rewind(self, tokens: int) -> None:
        """Remove the newest ``tokens`` of every row, as if they had never been read.

        Raises:
            ConfigError: this state, or a cache in it, cannot rewind; see ``state.LayerState.rewind``.
        """
        raise _cannot_rewind(self)


def _cannot_rewind(state: DecodingState) -> ConfigError:
    return ConfigError(
        f"{type(state).__name__} cannot take tokens back, as speculative decoding must: decode without it"
    )


class EvaluableModel(nn.Module):
    """Base of generating and encoding models."""

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Switch to evaluation mode inside the block, and restore the mode afterwards."""
        training = self.training
        if training:  # a walk over all modules, which for one short text is a tenth of the work
            self.eval()
        try:
            yield
        finally:
            if training:
                self.train()


class SequenceConfig(ABC):
    """Configuration of a generating model, of any family: what tasks need to know of it."""

    vocab: int | None
    """Target vocabulary V; None until the tokenizer sets it."""
    source_vocab: int | None
    """Source vocabulary where it differs; None when both sides share one."""
    dim: int
    """Width D of the vectors that the output layer reads."""

    @property
    @abstractmethod
    def translates(self) -> bool:
        """True where the model reads a source; False where it continues text."""

    @abstractmethod
    def sized(self, *, vocab: int, source_vocab: int | None = None) -> "SequenceConfig":
        """Return a copy with the sizes that only the data give."""

    @abstractmethod
    def build(self) -> "SequenceModel":
        """Build the model with initial weights.

        Raises:
            ConfigError: sizes that do not fit one another; the message names the path.
        """


class SequenceModel(EvaluableModel, ABC):
    """Generating model: predicts each next token of a target from those before it and, in most models, a source.

    A source is ids (B, S), or any other input of an ``EncoderModel``.
    """

    output: Linear
    """Projection of hidden vectors to logits, before ``logit_cap``."""
    logit_cap: float | None = None
    """Soft cap: logits become cap tanh(logits / cap); None for no cap."""
    keeps_keys: bool = True
    """True where decoding keeps keys and values, so that the kind of cache makes a difference."""

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Longest text on either side, in tokens; None for no limit."""

    @abstractmethod
    def hidden(
        self, target: Int[Tensor, "B T"] | Tokens, source: Tensor | Tokens | Frames | None = None
    ) -> Float[Tensor, "B T D"]:
        """Return the input of ``logits``: position t depends on ``target[:, :t+1]`` and the source.

        Raises:
            DataError: a text longer than ``max_length``.
            ValueError: a source for a model that takes none, or none for one that does.
        """

    @abstractmethod
    def start(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = DEFAULT) -> DecodingState:
        """Encode the source and return a state without target tokens. ``source`` is None for models without one."""

    @abstractmethod
    def decode(self, tokens: Int[Tensor, "B T"] | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        """Return the logits after each of ``tokens``, which follow those in ``state`` and are added to it.

        A single id is never padding. Tokens that see later ones (visibility.Prefix) see only those of this call.
        """

    def forward(
        self, target: Int[Tensor, "B T"] | Tokens, source: Tensor | Tokens | Frames | None = None
    ) -> Float[Tensor, "B T V"]:
        """Return next-token logits at every position of ``target``."""
        return self.logits(self.hidden(target, source))

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Return the logits of each entry of the vocabulary."""
        return self.capped(self.output(hidden))

    def capped(self, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Apply ``logit_cap``."""
        return logits if self.logit_cap is None else torch.tanh(logits / self.logit_cap) * self.logit_cap


class EncoderModel(EvaluableModel, ABC):
    """Encoding model: reads a whole input and generates nothing.

    Inputs are ids, ``Tokens``, images (B, channels, height, width), or ``Frames``: each model reads one of these.
    """

    head: nn.Module
    """Task head: maps hidden vectors and their padding mask to the model's output; see heads.py."""

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Longest text in tokens; None for no limit."""

    @abstractmethod
    def encode(self, inputs: Tensor | Tokens | Frames) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"] | None]:
        """Return a vector for each token, patch or frame, and a mask: False on padding, None when there is none.

        Raises:
            DataError: a text longer than ``max_length``, an image of another size, frames of another width.
        """

    def hidden(self, inputs: Tensor | Tokens | Frames) -> Float[Tensor, "B T D"]:
        """Return the hidden vectors alone."""
        return self.encode(inputs)[0]

    def forward(self, inputs: Tensor | Tokens | Frames) -> Tensor:
        """Return the head's output."""
        return self.head(*self.encode(inputs))
