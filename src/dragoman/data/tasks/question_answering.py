"""Question answering: the part of a text that answers a question on it.

B batch, T length.
"""

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.data.spans import SpanBatch, as_fields, selectable
from dragoman.model.interface import EncoderModel
from dragoman.model.moe import auxiliary_loss


@config
class QuestionAnsweringTask:
    """The part of a text that answers a question on it (Rajpurkar et al., arXiv:1606.05250)."""

    longest_answer: PositiveInt = 30
    """Tokens of an answer at most, when one is chosen."""
    unanswerable: bool | None = None
    """Whether the model may say that there is no answer; None for whether the training questions have such."""

    def loss(self, model: EncoderModel, batch: SpanBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy of start and end: sum over rows, and their number."""
        summed, count = span_loss(model(as_fields(batch.ids)), batch)
        return summed + auxiliary_loss(model) * count, count


def span_loss(logits: Float[Tensor, "B T 2"], batch: SpanBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Starts and ends outside the context have no probability, but those at position 0."""
    masked = logits.float().masked_fill(~selectable(batch.ids)[..., None], float("-inf"))
    summed = F.cross_entropy(masked.transpose(1, 2).flatten(0, 1), batch.spans.flatten(), reduction="sum")
    return summed, summed.new_full((), len(batch.ids))
