"""Learning from text that has been corrupted: words behind masks, and texts to be restored.

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
    """The words behind masks from those around them (BERT): for encoders with the head masked_language."""

    context: PositiveInt = 512
    """Longest row of text, in tokens; short documents share one, unseen by each other."""
    across_documents: bool = False
    """Rows are stretches of the text as it stands, and a token sees all of its row."""
    masking: Masking = Masking()

    def loss(self, model: EncoderModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy: sum over the chosen tokens, and their number."""
        summed, count = self.nll(model, batch)
        return summed + auxiliary_loss(model) * count, count

    def nll(self, model: EncoderModel, batch: TextBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The same without what keeps experts balanced."""
        head, vectors, targets = masked_features(model, batch)
        summed = linear_cross_entropy(vectors, head.output.weight, head.output.bias, targets, ignore=IGNORE)
        return summed, (targets != IGNORE).sum().float()


def masked_features(model: EncoderModel, batch: TextBatch) -> tuple[MaskedLanguageLayer, Float[Tensor, "N D"], Tensor]:
    """The head, what its output layer makes logits of, and the ids to be found: at the chosen tokens alone, or, in a
    program that is compiled for any number of them, at all tokens, with ``IGNORE`` for the others."""
    head = model.head
    assert isinstance(head, MaskedLanguageLayer), "checked before a run begins"
    hidden, _ = model.encode(as_tokens(batch.ids)._replace(segment=batch.segment))
    vectors, targets = hidden.flatten(0, 1), batch.targets.flatten()
    if not torch.compiler.is_compiling():
        chosen = targets != IGNORE
        vectors, targets = vectors[chosen], targets[chosen]
    return head, head.features(vectors), targets


@config
class DenoisingTask:
    """A text, or what was hidden of it, from what is left: for models that read and write (T5, BART)."""

    context: Annotated[int, Field(ge=2)] = 512
    """Longest text, in tokens, before it is corrupted."""
    across_documents: bool = False
    """Texts are stretches of all text as it stands; otherwise they are documents, and only longer ones are cut."""
    corruption: Corruption = SpanCorruption()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the probability that is spread evenly over the vocabulary."""

    def loss(self, model: SequenceModel, batch: PairBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy: sum over the tokens to be written, and their number."""
        summed, count = _written(model, batch, self.label_smoothing)
        return summed + auxiliary_loss(model) * count, count

    def nll(self, model: SequenceModel, batch: PairBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Plain negative log-likelihood."""
        return _written(model, batch, 0.0)


def _written(model: SequenceModel, batch: PairBatch, smoothing: float) -> tuple[Tensor, Tensor]:
    return token_cross_entropy(model, model.hidden(batch.target_in, batch.source), batch.target_out, PAD, smoothing)
