"""Contrastive objective: find each item's partner among all others in the batch."""

from jaxtyping import Float
from torch import Tensor

from dragoman.config import config
from dragoman.data.matches import MatchedBatch
from dragoman.model.contrastive import TwoTowers
from dragoman.model.moe import auxiliary_loss


@config
class ContrastiveTask:
    """Match each first item to its second and the other way round: texts with texts, or with images.

    The negatives are the other pairs of the batch (InfoNCE, van den Oord et al., arXiv:1807.03748, in both directions
    as in Radford et al., arXiv:2103.00020). With ``train.accumulate``, negatives stay within each batch: many small
    batches are another task than a large one, and an easier one.
    """

    def loss(self, model: TwoTowers, batch: MatchedBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the summed loss of the model's objective, and the number of pairs."""
        summed, count = model.loss(model(batch.first, batch.second).float())
        return summed + auxiliary_loss(model) * count, count
