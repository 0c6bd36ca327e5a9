"""What to do when memory does not suffice for a part of a step: smaller pieces, or an end in good order."""

from collections.abc import Sequence
from typing import Annotated

import torch

from dragoman.config import OneOf, config
from dragoman.errors import UserError
from dragoman.train.distributed.micro_batch import MicroBatch, cells, halved, size, tensors


class OutOfMemory(UserError, MemoryError):
    """Memory does not suffice for a part of a step; the weights are those after the step before."""

    def __init__(self, message: str, *, divisible: bool = True):
        super().__init__(message)
        self.divisible = divisible
        """Smaller batches would need less."""


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU torch has a class for it; on a CPU it is a RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


@config
class Stop:
    """Save, and say which setting fits."""

    def smaller(self, parts: Sequence[MicroBatch], failed: MicroBatch) -> list[MicroBatch]:
        """Another way to learn from ``parts``, of which ``failed`` did not fit.

        Raises:
            OutOfMemory: there is none.
        """
        raise OutOfMemory(f"out of memory on a batch of {size(failed)}")


@config
class Split:
    """Learn from the step again, in halves of every micro-batch as large as the one that did not fit. The gradient is
    the same, but for what dropout draws and for the balance of experts; where a single row does not fit, stop."""

    def smaller(self, parts: Sequence[MicroBatch], failed: MicroBatch) -> list[MicroBatch]:
        if len(next(tensors(failed.batch))) < 2:
            raise OutOfMemory(f"out of memory on {size(failed)}", divisible=False)
        limit = cells(failed)
        return [piece for part in parts for piece in (halved(part) if cells(part) >= limit else [part])]


OnMemory = Annotated[Split | Stop, OneOf()]
