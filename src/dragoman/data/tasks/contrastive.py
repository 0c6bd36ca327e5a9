"""A contrastive objective: what belongs together is to be found among all else in the batch."""

from jaxtyping import Float
from torch import Tensor

from dragoman.config import config
from dragoman.data.matches import MatchedBatch
from dragoman.model.contrastive import TwoTowers, contrastive_loss
from dragoman.model.moe import auxiliary_loss


@config
class ContrastiveTask:
    """Which of the second belongs to each of the first, and the other way round: texts with texts, or with images.

    What a pair is told from are the other pairs of its batch (InfoNCE, van den Oord et al., arXiv:1807.03748, both
    ways as in Radford et al., arXiv:2103.00020). With ``train.accumulate`` they stay within each batch: many small
    batches are another task than a large one, and an easier one.
    """

    def loss(self, model: TwoTowers, batch: MatchedBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Half of both cross-entropies: sum over pairs, and their number."""
        summed, count = contrastive_loss(model(batch.first, batch.second).float())
        return summed + auxiliary_loss(model) * count, count
