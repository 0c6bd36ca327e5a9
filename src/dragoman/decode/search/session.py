"""Decoder sessions: the model as a search calls it, with chosen tokens in and the next logits out.

B sentences, R rows, V vocabulary, S source length, P prompt length.
"""

from jaxtyping import Float, Int
from torch import Tensor

from dragoman.decode.search.strategy import Choice
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import DecodingState, SequenceModel, Tokens


class DecoderSession:
    """A session that reads one token at a time. Subclasses that read ahead override ``next``."""

    def __init__(
        self,
        model: SequenceModel,
        source: Tensor | Tokens | None,
        policy: KVPolicy,
        beams: int,
        state: DecodingState | None = None,
    ):
        """
        Args:
            state: a state to continue; None for a new one.
        """
        self.model, self.beams = model, beams
        self.state = model.start(source, policy) if state is None else state

    def first(self, prompt: Int[Tensor, "B P"] | Tokens) -> Float[Tensor, "B V"]:
        """Return the logits after a prompt that ends in the last column."""
        return self.model.decode(prompt, self.state)[:, -1]

    def next(self, choice: Choice) -> Float[Tensor, "R V"]:
        """Return the logits after the chosen tokens."""
        return self.model.decode(self.arranged(choice)[:, None], self.state)[:, -1]

    def arranged(self, choice: Choice) -> Int[Tensor, " R"]:
        """Bring the state to where ``choice`` wants it; return the tokens to read next."""
        arrange(self.state, choice, self.beams)
        return choice.tokens

    def join(self, other: "DecoderSession", choice: Choice, of_other: Choice) -> None:
        """Append the rows of ``other``; both batches have made their choices."""
        arrange(self.state, choice, self.beams)
        arrange(other.state, of_other, other.beams)
        self.state.join(other.state)


def arrange(state: DecodingState, choice: Choice, beams: int) -> None:
    """Keep, multiply and reorder the rows of ``state`` as ``choice`` demands."""
    if state.beams != beams:
        state.expand(beams)
    if choice.keep is not None:
        state.select(choice.keep)
    if choice.rows is not None:
        state.reorder(choice.rows)
