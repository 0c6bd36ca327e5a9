"""What processes that learn together tell one another: here there is one, which has nothing to tell.

``parallel.py`` has those of several. Losses are sums and come with counts, so adding up is all there is to it: the
one division comes after, and the gradient does not depend on who learned from which part of the step.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Exchange:
    """Between this process and the others, none here."""

    complete = True
    """This process has all weights: it can save, or repeat a part of a step, by itself."""

    def place(self, model: nn.Module, device: torch.device) -> None:
        """Move ``model``, whose weights are as they should begin, to where it learns."""
        model.to(device)

    # ---- in each step ----

    def add_up(self, model: nn.Module, sums: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Over all processes: the gradients of ``model``, in place, and ``sums``, which are returned."""
        return sums

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """As they are now, for all that learns."""
        return [p.grad for p in model.parameters() if p.grad is not None]

    def norm(self, gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
        """Of the whole gradient."""
        return nn.utils.get_total_norm(gradients)

    # ---- now and then ----

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside the block this process has all weights of ``model``, to look at and not to change."""
        return nullcontext()

    def full(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a checkpoint holds of ``tensors``, weights or ``PARAMETER:WHAT`` of the optimizer: all of each."""
        return tensors

    def share(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Undo ``full``: what this process has of each."""
        return tensors
