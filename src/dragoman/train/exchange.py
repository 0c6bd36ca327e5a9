"""What processes that learn together tell one another in a step: here there is one, which has nothing to tell.

``parallel.py`` has those of several. Losses are sums and come with counts, so adding up is all there is to it: the
one division comes after, and the gradient does not depend on who learned from which part of the step.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Exchange:
    """Between this process and the others, none here."""

    def add_up(self, model: nn.Module, sums: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Over all processes: the gradients of ``model``, in place, and ``sums``, which are returned."""
        return sums

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """As they are now, for all that learns."""
        return [p.grad for p in model.parameters() if p.grad is not None]

    def norm(self, gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
        """Of the whole gradient."""
        return nn.utils.get_total_norm(gradients)
