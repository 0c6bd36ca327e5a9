"""Notes for whoever counts the work of a step: what operations of PyTorch alone do not tell.

A recurrence is no product of matrices, so a counter of products misses it; a loss that computes its gradient in the
forward pass would count it as forward; and what repeats alike need not be counted each time. A counter runs a step on
shapes alone. Without one, each note costs a look at an empty list.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor


class WorkObserver(Protocol):
    """Counter that is told of work which operations do not show."""

    early: int
    """Number of gradients being computed within the forward pass."""
    times: int
    """Number of times that the work being done now counts."""

    def recurrence(self, states: Tensor) -> None:
        """Note that each of ``states`` was multiplied by its decay and added to."""
        ...


OBSERVERS: list[WorkObserver] = []
"""Counters at work."""


def note_recurrence(states: Tensor) -> None:
    """Tell every counter that ``states`` were computed, each from the one before."""
    for observer in OBSERVERS:
        observer.recurrence(states)


@contextmanager
def early_gradient() -> Iterator[None]:
    """Mark the block as part of the backward pass, although it runs in the forward pass."""
    for observer in OBSERVERS:
        observer.early += 1
    try:
        yield
    finally:
        for observer in OBSERVERS:
            observer.early -= 1


@contextmanager
def standing_for(times: int) -> Iterator[None]:
    """Count the work of the block ``times`` times, in the place of blocks that are alike and are left out."""
    for observer in OBSERVERS:
        observer.times *= times
    try:
        yield
    finally:
        for observer in OBSERVERS:
            observer.times //= times


def alike(passes: range, number: int) -> Iterator[int]:
    """Yield the ``passes`` of a loop, of which the first ``number`` do the same work. A counter gets two of these, the
    first, and the second for all others."""
    if not OBSERVERS or number <= 2:
        yield from passes
        return
    yield passes[0]
    with standing_for(number - 1):
        yield passes[1]
    yield from passes[number:]
