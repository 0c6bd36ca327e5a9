"""Common ground of mixers that sum up the past in a state: how they treat padding and packed texts.

Padding must leave the state as it is, and every text begins with the empty state. Both hold in the parallel form of
training, in which all tokens are read at once, and step by step.

B batch, T newest tokens, K cached and newest tokens, D channels.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from dragoman.model.caches.state import VisibleKeys
from dragoman.model.caches.summary import JoinedState, SummaryState
from dragoman.model.depthwise import ConvolutionState, Neighbours
from dragoman.model.positions.tokens import Positions


class Recurrence(NamedTuple):
    """Context of recurrent layers in one forward pass: the newest tokens, and where texts begin."""

    real: Bool[Tensor, "B T"] | None
    """False on padding, which leaves the state as it is; None where nothing is padded. A first dimension of 1 applies
    to every row."""
    starts: Bool[Tensor, "B T"] | None
    """True on the first token of each text, before which the state is emptied; None where each row is one text, which
    begins with an empty state."""
    neighbours: Neighbours
    """Neighbours of the tokens, for a convolution before the recurrence."""

    @classmethod
    def of(cls, new: Positions, seen: VisibleKeys) -> "Recurrence":
        first = new.pos == 0
        if new.keep is not None:
            first = first & new.keep
        return cls(new.keep, None if new.segment is None else first, Neighbours.of(new, seen))


class ConvolvedState(JoinedState):
    """State of a recurrence that reads what a convolution gives: the inputs of the convolution, and the summary."""

    def __init__(self, *, remembers: bool):
        self.inputs, self.summary = ConvolutionState(remembers=remembers), SummaryState(remembers=remembers)
        super().__init__(self.inputs, self.summary)

    def extend(self, new: Float[Tensor, "B T D"], context: Recurrence) -> Float[Tensor, "B K D"]:
        """Append ``new`` to the inputs of the convolution and return all that are needed, ``new`` last."""
        return self.inputs.extend(new, context.neighbours.retained)
