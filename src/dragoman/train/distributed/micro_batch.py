"""What is learned from at once: the micro-batches of a step, and how processes, or too little memory, cut them up.

A step's gradient is a sum over tokens, so it is the same however the step is cut.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor


class MicroBatch(NamedTuple):
    """A micro-batch of the step, or a piece of one."""

    batch: Any
    """Tensors whose rows are examples; or, before these are made, the rows themselves."""
    place: tuple[int, ...]
    """Which of the step's micro-batches, and which piece of that: its random numbers are drawn by this."""
    weight: float = 1.0
    """0 for one that another process learns from, and that this one only keeps pace with."""


def whole(batches: Iterable[Any]) -> list[MicroBatch]:
    """A step's micro-batches, uncut."""
    return [MicroBatch(batch, (number,)) for number, batch in enumerate(batches)]


def shared_out(micro_batches: Sequence[Any], count: int) -> list[list[MicroBatch]]:
    """What each of ``count`` processes learns from in a step, as rows.

    Micro-batches stay whole as long as there is one for each process. What is left is cut by rows, into as few
    pieces as come out even. A process for which no row is left repeats one, with weight 0: all make as many passes.
    """
    left = len(micro_batches) % count
    parts = whole(micro_batches)
    pieces = [
        MicroBatch(rows[begin:end], (number, i), float(end > begin))
        if end > begin
        else MicroBatch(rows[:1], (number, i), 0.0)
        for rows, (number,), _ in parts[len(parts) - left :]
        for i, (begin, end) in enumerate(_cuts(len(rows), count // math.gcd(left, count)))
    ]
    parts = parts[: len(parts) - left]
    return [parts[k::count] + pieces[k::count] for k in range(count)]


def halved(part: MicroBatch) -> list[MicroBatch]:
    """Two pieces with half of the rows each; one part, unchanged, where there is one row."""
    rows = len(next(tensors(part.batch)))
    if rows < 2:
        return [part]
    return [
        MicroBatch(_each(part.batch, lambda tensor: tensor[begin:end]), (*part.place, i), part.weight)  # noqa: B023
        for i, (begin, end) in enumerate(_cuts(rows, 2))
    ]


def pinned(part: MicroBatch) -> MicroBatch:
    """In memory that a GPU can copy from while it computes."""
    return part._replace(batch=_each(part.batch, Tensor.pin_memory))


def cells(part: MicroBatch) -> int:
    """Elements of its largest tensor: rows times length."""
    return max(tensor.numel() for tensor in tensors(part.batch))


def size(part: MicroBatch) -> str:
    """Such as ``128 rows of 31 and 29 tokens``."""
    found = list(tensors(part.batch))
    lengths, rows = dict.fromkeys(tensor.shape[1] for tensor in found if tensor.ndim == 2), len(found[0])
    return f"{rows} row{'s' if rows != 1 else ''} of {' and '.join(map(str, lengths))} tokens"


def tensors(batch: Any) -> Iterator[Tensor]:
    """Of a batch, those within its parts too: the first of all has its rows."""
    for part in batch:
        if isinstance(part, tuple):
            yield from tensors(part)
        elif part is not None:
            yield part


def _each(batch: Any, change: Any) -> Any:
    if isinstance(batch, tuple):
        return type(batch)(*(_each(part, change) for part in batch))
    return None if batch is None else change(batch)


def _cuts(rows: int, pieces: int) -> Iterator[tuple[int, int]]:
    return pairwise(rows * i // pieces for i in range(pieces + 1))
