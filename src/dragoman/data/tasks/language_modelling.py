"""Language modelling: each token from those before it.

B batch, T length, D width, V vocabulary.
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.data.packing import IGNORE, TextBatch
from dragoman.data.tasks.answers import token_cross_entropy
from dragoman.model.interface import SequenceModel, Tokens
from dragoman.model.moe import auxiliary_loss


@config
class LanguageModellingTask:
    """Each token from those before it in its document."""

    context: PositiveInt = 512
    """Longest row of text, in tokens."""
    across_documents: bool = False
    """Rows are stretches of the text as it stands, and a token sees all of its row; otherwise no token sees another
    document's, and only documents longer than a row are cut."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the probability that is spread evenly over the vocabulary."""

    def loss(self, model: SequenceModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy and, with mixtures of experts, what keeps them balanced: sum over tokens, and their number."""
        summed, count = _next_tokens(model, batch, self.label_smoothing)
        return summed + auxiliary_loss(model) * count, count

    def nll(self, model: SequenceModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Plain negative log-likelihood."""
        return _next_tokens(model, batch, 0.0)


def _next_tokens(model: SequenceModel, batch: TextBatch, smoothing: float) -> tuple[Tensor, Tensor]:
    hidden = model.hidden(Tokens(batch.ids, segment=batch.segment))
    return token_cross_entropy(model, hidden, batch.targets, IGNORE, smoothing)
