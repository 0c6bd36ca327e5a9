"""Exchange of gradients and weights between processes; here the trivial one, for a single process.

``parallel.py`` has the exchanges for several processes. Losses are sums and come with counts, so all-reduce by summing
is all that is needed: the one division comes after, and the gradient does not depend on which process learned from
which part of the step.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Exchange:
    """Exchange of a single process: every method returns what it is given."""

    complete = True
    """True if this process has all weights: it can save, or repeat a part of a step, without the others."""

    def place(self, model: nn.Module, device: torch.device) -> None:
        """Move ``model``, which has its initial weights, to the device it is trained on."""
        model.to(device)

    # ---- in each step ----

    def all_reduce(self, model: nn.Module, sums: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Sum the gradients of ``model`` in place over all processes; return ``sums`` summed likewise."""
        return sums

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """Return the gradients of all parameters that have one."""
        return [p.grad for p in model.parameters() if p.grad is not None]

    def norm(self, gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
        """Return the norm of the whole gradient."""
        return nn.utils.get_total_norm(gradients)

    # ---- now and then ----

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside the block this process has all weights of ``model``, to read and not to change."""
        return nullcontext()

    def full(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the full tensors of ``tensors``, as a checkpoint holds them: weights, or ``PARAMETER:NAME`` of the
        optimizer."""
        return tensors

    def share(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return this process's shard of each of ``tensors``; the inverse of ``full``."""
        return tensors
