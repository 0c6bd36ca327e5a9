"""Language modelling: predict each token from those before it.

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
    """Predict each token from those before it in its document."""

    context: PositiveInt = 512
    """Maximum length of a row of text, in tokens."""
    across_documents: bool = False
    """Fill rows with consecutive text, and let a token attend to its whole row; otherwise no token sees another
    document, and only documents longer than a row are split."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread evenly over the vocabulary."""

    def loss(self, model: SequenceModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the cross-entropy and, with mixtures of experts, the balancing loss, summed over tokens, and their
        number."""
        summed, count = _next_tokens(model, batch, self.label_smoothing)
        return summed + auxiliary_loss(model) * count, count

    def nll(self, model: SequenceModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the negative log-likelihood without smoothing, and the number of tokens."""
        return _next_tokens(model, batch, 0.0)


def _next_tokens(model: SequenceModel, batch: TextBatch, smoothing: float) -> tuple[Tensor, Tensor]:
    hidden = model.hidden(Tokens(batch.ids, segment=batch.segment))
    return token_cross_entropy(model, hidden, batch.targets, IGNORE, smoothing)
