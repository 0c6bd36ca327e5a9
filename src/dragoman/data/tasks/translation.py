"""Translation: each target token from the source and the target tokens before it.

B batch, S source length, T target length, D width, V vocabulary.
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dragoman.config import config
from dragoman.data.batch import Batch
from dragoman.data.tasks.answers import answered
from dragoman.model.interface import PAD, SequenceModel
from dragoman.model.moe import auxiliary_loss


@config
class Translation:
    """Each target token from the source and the target tokens before it."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the probability that is spread evenly over the vocabulary (2017: 0.1)."""

    def loss(self, model: SequenceModel, batch: Batch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What training lowers: smoothed cross-entropy and, with mixtures of experts, what keeps them balanced.

        Returns the sum over the batch's target tokens and their number.
        """
        summed, count = _cross_entropy(model, batch, self.label_smoothing)
        return summed + auxiliary_loss(model) * count, count

    def surprise(self, model: SequenceModel, batch: Batch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Plain negative log-likelihood, for validation: its mean is the logarithm of the perplexity."""
        return _cross_entropy(model, batch, 0.0)


def _cross_entropy(model: SequenceModel, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
    return answered(model, model.hidden(batch.target_in, batch.source), batch.target_out, PAD, smoothing)
