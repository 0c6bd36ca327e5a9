"""Cross-entropy of the target tokens of a generating model.

B batch, T length, D width; twice is 2 B.
"""

from jaxtyping import Float
from torch import Tensor

from dragoman.model.interface import SequenceModel
from dragoman.model.loss import linear_cross_entropy, linear_r_drop


def token_cross_entropy(
    model: SequenceModel, hidden: Float[Tensor, "B T D"], targets: Tensor, ignore: int, smoothing: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the cross-entropy summed over the tokens whose target is not ``ignore``, and their number."""
    summed = linear_cross_entropy(
        hidden.flatten(0, 1),
        model.output.weight,
        model.output.bias,
        targets.flatten(),
        smoothing=smoothing,
        ignore=ignore,
        cap=model.logit_cap,
        product=model.output.product,
    )
    return summed, (targets != ignore).sum().float()


def token_cross_entropy_twice(
    model: SequenceModel,
    hidden: Float[Tensor, "twice T D"],
    targets: Tensor,
    ignore: int,
    smoothing: float,
    alpha: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean of two passes, the second below the first, plus ``alpha`` times their disagreement: see
    ``linear_r_drop``. The number of tokens is that of one pass."""
    one, two = (half.flatten(0, 1) for half in hidden.chunk(2))
    summed = linear_r_drop(
        one,
        two,
        model.output.weight,
        model.output.bias,
        targets.flatten(),
        alpha=alpha,
        smoothing=smoothing,
        ignore=ignore,
        cap=model.logit_cap,
        product=model.output.product,
    )
    return summed, (targets != ignore).sum().float()
