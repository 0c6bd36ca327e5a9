"""What a model is trained to do: from a batch to a summed loss and the number of tokens (or labels) summed over.

B batch, S source length, T target length, D width, V vocabulary, N tokens.
"""

from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.data.batch import Batch
from dragoman.data.labels import LabelledBatch
from dragoman.data.packing import IGNORE, TextBatch
from dragoman.model.interface import PAD, EncoderModel, SequenceModel, Tokens
from dragoman.model.loss import linear_cross_entropy
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


@config
class LanguageModelling:
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

    def surprise(self, model: SequenceModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Plain negative log-likelihood."""
        return _next_tokens(model, batch, 0.0)


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


Task = Annotated[Translation | LanguageModelling | Classification, OneOf(usual="translation")]

# ---- cross-entropy --------------------------------------------------------------------------------


def _cross_entropy(model: SequenceModel, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
    return _answered(model, model.hidden(batch.target_in, batch.source), batch.target_out, PAD, smoothing)


def _next_tokens(model: SequenceModel, batch: TextBatch, smoothing: float) -> tuple[Tensor, Tensor]:
    hidden = model.hidden(Tokens(batch.ids, segment=batch.segment))
    return _answered(model, hidden, batch.targets, IGNORE, smoothing)


def _answered(
    model: SequenceModel, hidden: Float[Tensor, "B T D"], targets: Tensor, ignore: int, smoothing: float
) -> tuple[Tensor, Tensor]:
    summed = linear_cross_entropy(
        hidden.flatten(0, 1),
        model.output.weight,
        model.output.bias,
        targets.flatten(),
        smoothing=smoothing,
        ignore=ignore,
        cap=model.logit_cap,
    )
    return summed, (targets != ignore).sum().float()
