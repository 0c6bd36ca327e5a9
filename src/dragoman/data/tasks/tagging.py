"""Tagging: predict a label for each word of a text.

B batch, T length, K labels.
"""

from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dragoman.config import config
from dragoman.data.tags import IGNORE, TaggedBatch
from dragoman.model.interface import EncoderModel
from dragoman.model.moe import auxiliary_loss


@config
class TaggingTask:
    """Predict a label for each word of a text."""

    labels: tuple[str, ...] | None = None
    """Labels in the order of the model's classes; None for those of the training text."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread evenly over the labels."""

    def loss(self, model: EncoderModel, batch: TaggedBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the cross-entropy summed over words, and their number."""
        summed, count = word_loss(model(batch.ids), batch, self.label_smoothing)
        return summed + auxiliary_loss(model) * count, count


def word_loss(
    logits: Float[Tensor, "B T K"], batch: TaggedBatch, smoothing: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    summed = F.cross_entropy(
        logits.float().flatten(0, 1),
        batch.labels.flatten(),
        reduction="sum",
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )
    return summed, (batch.labels != IGNORE).sum().float()
