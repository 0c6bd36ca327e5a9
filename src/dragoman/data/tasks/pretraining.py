"""Pre-training on corrupted text: masked language modelling and denoising.

B batch, T length, D width, V vocabulary, N masked tokens.
"""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.data.batch import PairBatch
from dragoman.data.corruption import Corruption, Masking, SpanCorruption
from dragoman.data.packing import IGNORE, TextBatch
from dragoman.data.tasks.answers import token_cross_entropy
from dragoman.model.heads import MaskedLanguageLayer
from dragoman.model.interface import PAD, EncoderModel, SequenceModel
from dragoman.model.loss import linear_cross_entropy
from dragoman.model.moe import auxiliary_loss
from dragoman.model.positions.tokens import as_tokens


@config
class MaskedLanguageModellingTask:
    """Predict masked words from those around them (BERT): for encoders with the head masked_language."""

    context: PositiveInt = 512
    """Maximum length of a row of text, in tokens; short documents share a row without seeing each other."""
    across_documents: bool = False
    """Fill rows with consecutive text, and let a token attend to its whole row."""
    masking: Masking = Masking()

    def loss(self, model: EncoderModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the cross-entropy summed over the chosen tokens, and their number."""
        summed, count = self.nll(model, batch)
        return summed + auxiliary_loss(model) * count, count

    def nll(self, model: EncoderModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the loss without the balancing of experts."""
        head, vectors, targets = masked_features(model, batch)
        summed = linear_cross_entropy(vectors, head.output.weight, head.output.bias, targets, ignore=IGNORE)
        return summed, (targets != IGNORE).sum().float()


def masked_features(model: EncoderModel, batch: TextBatch) -> tuple[MaskedLanguageLayer, Float[Tensor, "N D"], Tensor]:
    """Return the head, the vectors that its output layer turns into logits, and the target ids: at the chosen tokens
    alone, or at all tokens in a compiled program, which serves any number of chosen ones, with ``IGNORE`` for the
    others."""
    head = model.head
    assert isinstance(head, MaskedLanguageLayer), "checked before a run begins"
    hidden = model.hidden(as_tokens(batch.ids)._replace(segment=batch.segment))
    vectors, targets = hidden.flatten(0, 1), batch.targets.flatten()
    if not torch.compiler.is_compiling():
        chosen = targets != IGNORE
        vectors, targets = vectors[chosen], targets[chosen]
    return head, head.features(vectors), targets


@config
class DenoisingTask:
    """Generate a text, or its hidden parts, from the rest: for encoder-decoders (T5, BART)."""

    context: Annotated[int, Field(ge=2)] = 512
    """Maximum length of a text, in tokens, before it is corrupted."""
    across_documents: bool = False
    """Split all text into consecutive stretches; otherwise texts are documents, and only longer ones are split."""
    corruption: Corruption = SpanCorruption()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread evenly over the vocabulary."""

    def loss(self, model: SequenceModel, batch: PairBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the cross-entropy summed over the target tokens, and their number."""
        summed, count = _written(model, batch, self.label_smoothing)
        return summed + auxiliary_loss(model) * count, count

    def nll(self, model: SequenceModel, batch: PairBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the negative log-likelihood without smoothing, and the number of tokens."""
        return _written(model, batch, 0.0)


def _written(model: SequenceModel, batch: PairBatch, smoothing: float) -> tuple[Tensor, Tensor]:
    return token_cross_entropy(model, model.hidden(batch.target_in, batch.source), batch.target_out, PAD, smoothing)
