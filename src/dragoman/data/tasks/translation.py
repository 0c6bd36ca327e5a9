"""Translation: predict each target token from the source and the target tokens before it.

B batch, S source length, T target length, D width, V vocabulary.
"""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from dragoman.config import config
from dragoman.data.batch import PairBatch
from dragoman.data.tasks.answers import token_cross_entropy, token_cross_entropy_twice
from dragoman.model.interface import PAD, SequenceModel
from dragoman.model.moe import auxiliary_loss


@config
class TranslationTask:
    """Predict each target token from the source and the target tokens before it."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Probability mass that is spread evenly over the vocabulary (2017: 0.1)."""
    r_drop: NonNegativeFloat = 0.0
    """Weight of the disagreement between two passes with different dropout (R-Drop, Liang et al., arXiv:2106.14448: 5),
    for twice the time and memory per step; 0 for one pass."""

    def loss(self, model: SequenceModel, batch: PairBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return smoothed cross-entropy, plus the balancing loss of mixtures of experts, summed over the batch's target
        tokens, and their number."""
        if self.r_drop:
            hidden = model.hidden(*(torch.cat([ids, ids]) for ids in (batch.target_in, batch.source)))
            summed, count = token_cross_entropy_twice(
                model, hidden, batch.target_out, PAD, self.label_smoothing, self.r_drop
            )
        else:
            summed, count = _cross_entropy(model, batch, self.label_smoothing)
        return summed + auxiliary_loss(model) * count, count

    def nll(self, model: SequenceModel, batch: PairBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the negative log-likelihood without smoothing, for validation: its mean is the logarithm of the
        perplexity."""
        return _cross_entropy(model, batch, 0.0)


def _cross_entropy(model: SequenceModel, batch: PairBatch, smoothing: float) -> tuple[Tensor, Tensor]:
    return token_cross_entropy(model, model.hidden(batch.target_in, batch.source), batch.target_out, PAD, smoothing)
