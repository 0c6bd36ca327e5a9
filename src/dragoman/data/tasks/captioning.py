"""Captioning: predict each token of a caption from the image and the tokens before it."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dragoman.config import config
from dragoman.data.captioning import CaptionBatch
from dragoman.data.tasks.answers import token_cross_entropy
from dragoman.model.interface import PAD
from dragoman.model.moe import auxiliary_loss
from dragoman.model.prefixed import PrefixedTransformer


@config
class CaptioningTask:
    """Continue an image with its caption: the loss is that of the text alone."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread evenly over the vocabulary."""
    encoder_from: str | None = None
    """Run whose encoder this one starts from, such as a classifier of images or towers; None for random weights."""
    decoder_from: str | None = None
    """Run whose language model and tokenizer this one starts from; None for random weights and a new tokenizer."""

    def loss(self, model: PrefixedTransformer, batch: CaptionBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the cross-entropy summed over the tokens of the captions, and their number."""
        summed, count = _caption_loss(model, batch, self.label_smoothing)
        return summed + auxiliary_loss(model) * count, count

    def nll(self, model: PrefixedTransformer, batch: CaptionBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the negative log-likelihood without smoothing, and the number of tokens."""
        return _caption_loss(model, batch, 0.0)


def _caption_loss(model: PrefixedTransformer, batch: CaptionBatch, smoothing: float) -> tuple[Tensor, Tensor]:
    hidden = model.hidden(batch.target_in, batch.images)
    return token_cross_entropy(model, hidden, batch.target_out, PAD, smoothing)
