"""Question answering: find the part of a text that answers a question about it.

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
    """Find the part of a text that answers a question about it (Rajpurkar et al., arXiv:1606.05250)."""

    longest_answer: PositiveInt = 30
    """Maximum number of tokens in a chosen answer."""
    unanswerable: bool | None = None
    """True if the model may predict that there is no answer; None for whether the training questions have such."""
    null_threshold: float = 0.0
    """Amount by which the score of no answer must exceed that of the best span, so that none is predicted; as
    ``null_score_diff_threshold`` in transformers."""

    def loss(self, model: EncoderModel, batch: SpanBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the cross-entropy of start and end summed over rows, and the number of rows."""
        summed, count = span_loss(model(as_fields(batch.ids)), batch)
        return summed + auxiliary_loss(model) * count, count


def span_loss(logits: Float[Tensor, "B T 2"], batch: SpanBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the span loss. Starts and ends outside the context have no probability, except at position 0."""
    masked = logits.float().masked_fill(~selectable(batch.ids)[..., None], float("-inf"))
    summed = F.cross_entropy(masked.transpose(1, 2).flatten(0, 1), batch.spans.flatten(), reduction="sum")
    return summed, summed.new_full((), len(batch.ids))
