"""The cross-entropy of what a model that writes was to say.

B batch, T length, D width.
"""

from jaxtyping import Float
from torch import Tensor

from dragoman.model.interface import SequenceModel
from dragoman.model.loss import linear_cross_entropy


def answered(
    model: SequenceModel, hidden: Float[Tensor, "B T D"], targets: Tensor, ignore: int, smoothing: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Summed over the tokens whose target is not ``ignore``, and their number."""
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
