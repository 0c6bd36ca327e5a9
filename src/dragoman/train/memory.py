"""Handling of a step that does not fit into memory: smaller pieces, or an orderly end."""

from collections.abc import Sequence
from typing import Annotated

import torch

from dragoman.config import OneOf, config
from dragoman.errors import UserError
from dragoman.train.distributed.micro_batch import MicroBatch, describe, halve, num_elements, tensors


class OutOfMemory(UserError, MemoryError):
    """Raised when memory does not suffice for a part of a step; the weights are those after the step before."""

    def __init__(self, message: str, *, divisible: bool = True):
        super().__init__(message)
        self.divisible = divisible
        """True if smaller batches would need less."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if ``error`` means out of memory. On a GPU torch has a class for it; on a CPU it is a
    RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


@config
class Stop:
    """Save, and report which setting fits."""

    def smaller(self, parts: Sequence[MicroBatch], failed: MicroBatch) -> list[MicroBatch]:
        """Return ``parts`` in smaller pieces; ``failed`` is the one that did not fit.

        Raises:
            OutOfMemory: nothing smaller is possible.
        """
        raise OutOfMemory(f"out of memory on a batch of {describe(failed)}")


class KeepWhole:
    """Report which setting fits, for batches that must not become smaller: their rows depend on one another."""

    def smaller(self, parts: Sequence[MicroBatch], failed: MicroBatch) -> list[MicroBatch]:
        raise OutOfMemory(f"out of memory on a batch of {describe(failed)}", divisible=False)


@config
class Split:
    """Repeat the step with every micro-batch as large as the failed one split in halves. The gradient is the same,
    except for dropout's random numbers and the balance of experts; where a single row does not fit, stop."""

    def smaller(self, parts: Sequence[MicroBatch], failed: MicroBatch) -> list[MicroBatch]:
        if len(next(tensors(failed.batch))) < 2:
            raise OutOfMemory(f"out of memory on {describe(failed)}", divisible=False)
        limit = num_elements(failed)
        return [piece for part in parts for piece in (halve(part) if num_elements(part) >= limit else [part])]


OnMemory = Annotated[Split | Stop, OneOf()]
