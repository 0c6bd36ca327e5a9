"""One operation of a step: the unit in which work is counted and its time predicted."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Operation:
    """Calls of one operation on the same shapes, in one part of the model."""

    name: str
    """Name as PyTorch dispatches it, such as ``aten.mm``, or the name of a kernel of this package."""
    part: str
    """Share of the model it belongs to: ``embedding``, ``attention`` (any mixer), ``feed_forward``, ``output``, or
    ``other`` (norms, residuals, the optimizer)."""
    backward: bool
    """True in the backward pass."""
    shapes: tuple[tuple[int, ...], ...]
    """Shapes of its tensor arguments."""
    dtype: torch.dtype
    """Data type of its result."""
    flops: int
    """Floating-point operations of one call, in products and recurrences; a multiplication and an addition are two."""
    bytes_moved: int
    """Bytes read and written by one call, if each argument and each result passes through memory once."""
    calls: int = 1
    """Number of calls in the step."""
    weight_bytes: int = 0
    """Those of ``bytes_moved`` that are matrices of weights."""
