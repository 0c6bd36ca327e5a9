"""The model as a search sees it: told what was chosen, it gives the logits that follow.

B sentences, R rows, V vocabulary, S source length, P prompt length.
"""

from jaxtyping import Float, Int
from torch import Tensor

from dragoman.decode.search.strategy import Choice
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import DecodingState, SequenceModel, Tokens


class DecoderSession:
    """One token at a time. Whoever reads ahead overrides ``next``."""

    def __init__(self, model: SequenceModel, source: Int[Tensor, "B S"] | Tokens | None, policy: KVPolicy, beams: int):
        self.model, self.beams = model, beams
        self.state = model.start(source, policy)

    def first(self, prompt: Int[Tensor, "B P"] | Tokens) -> Float[Tensor, "B V"]:
        """Logits after a prompt that ends in the last column."""
        return self.model.decode(prompt, self.state)[:, -1]

    def next(self, choice: Choice) -> Float[Tensor, "R V"]:
        """Logits after what was chosen."""
        arrange(self.state, choice, self.beams)
        return self.model.decode(choice.tokens[:, None], self.state)[:, -1]

    def join(self, other: "DecoderSession", choice: Choice, of_other: Choice) -> None:
        """Take in the rows of ``other`` behind these; both go on as chosen."""
        arrange(self.state, choice, self.beams)
        arrange(other.state, of_other, other.beams)
        self.state.join(other.state)


def arrange(state: DecodingState, choice: Choice, beams: int) -> None:
    """Keep, multiply and reorder the rows of ``state`` as ``choice`` says."""
    if state.beams != beams:
        state.expand(beams)
    if choice.keep is not None:
        state.select(choice.keep)
    if choice.rows is not None:
        state.reorder(choice.rows)
