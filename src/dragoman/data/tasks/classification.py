"""Classification: predict the label of a text, an image, or a sequence of frames."""

from typing import Annotated, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from dragoman.config import config
from dragoman.data.augment import Augment, NoAugment
from dragoman.data.labels import LabelledBatch
from dragoman.data.material import repeat_batch
from dragoman.model.interface import EncoderModel
from dragoman.model.loss import disagreement
from dragoman.model.moe import auxiliary_loss

ProblemType = Literal["single_label", "multi_label", "regression"]


@config
class ClassificationTask:
    """Predict the label of a text, an image, or a sequence of frames."""

    labels: tuple[str, ...] | None = None
    """Labels in the order of the model's classes; None for those of the training examples."""
    problem_type: ProblemType = "single_label"
    """Meaning of the logits: one of the labels (softmax), any number of them (sigmoid), or values. Models trained here
    have the first; imported models may have the others."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread evenly over the labels."""
    r_drop: NonNegativeFloat = 0.0
    """Weight of the disagreement between two passes with different dropout (R-Drop, Liang et al., arXiv:2106.14448: 0.1
    to 1), for twice the time and memory per step; 0 for one pass."""
    augment: Augment = NoAugment()
    """Random changes of images at each step."""

    def loss(self, model: EncoderModel, batch: LabelledBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the cross-entropy summed over examples, and their number."""
        inputs, labels = self.augment.of(batch.inputs), batch.labels
        passes = 2 if self.r_drop else 1
        logits = model(repeat_batch(inputs, passes)).float()
        options = {"reduction": "sum", "label_smoothing": self.label_smoothing}
        summed = F.cross_entropy(logits, labels.repeat(passes), **options) / passes
        if self.r_drop:
            summed = summed + self.r_drop / 4 * disagreement(*logits.chunk(2))
        return summed + auxiliary_loss(model) * len(labels), summed.new_full((), len(labels))
