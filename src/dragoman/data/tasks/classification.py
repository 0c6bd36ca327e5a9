"""Classification: the label of a text."""

from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dragoman.config import config
from dragoman.data.labels import LabelledBatch
from dragoman.model.interface import EncoderModel
from dragoman.model.moe import auxiliary_loss


@config
class Classification:
    """The label of a text."""

    labels: tuple[str, ...] | None = None
    """In the order of the model's classes; None for those of the training text."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the probability that is spread evenly over the labels."""

    def loss(self, model: EncoderModel, batch: LabelledBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy: sum over texts, and their number."""
        logits = model(batch.ids).float()
        summed = F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=self.label_smoothing)
        return summed + auxiliary_loss(model) * len(logits), summed.new_tensor(len(logits))
