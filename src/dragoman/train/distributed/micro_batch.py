"""Micro-batches of a step, and how they are split between processes or when memory does not suffice.

A step's gradient is a sum over tokens, so it is the same however the step is split. Where the rows of a batch depend on
one another (``TaskData.rows_are_independent``), none is cut.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor


class MicroBatch(NamedTuple):
    """A micro-batch of the step, or a piece of one."""

    batch: Any
    """Tensors whose rows are examples; or, before these are made, the row indices."""
    position: tuple[int, ...]
    """Index of the step's micro-batch, then of the piece within it: seeds this part's random numbers."""
    weight: float = 1.0
    """0 for a part that another process learns from and this one only computes to keep pace; else 1."""


def unsplit(batches: Iterable[Any]) -> list[MicroBatch]:
    """Return a step's micro-batches unsplit."""
    return [MicroBatch(batch, (number,)) for number, batch in enumerate(batches)]


def split_between_processes(micro_batches: Sequence[Any], count: int) -> list[list[MicroBatch]]:
    """Return the parts of a step for each of ``count`` processes, as rows.

    Micro-batches stay whole as long as there is one for each process. The remainder is split by rows, into the fewest
    pieces that come out even. A process with no rows left repeats one with weight 0, so that all processes make the
    same number of passes: collective operations would wait forever otherwise.
    """
    left = len(micro_batches) % count
    parts = unsplit(micro_batches)
    pieces = [
        MicroBatch(rows[begin:end], (number, i), float(end > begin))
        if end > begin
        else MicroBatch(rows[:1], (number, i), 0.0)
        for rows, (number,), _ in parts[len(parts) - left :]
        for i, (begin, end) in enumerate(_cuts(len(rows), count // math.gcd(left, count)))
    ]
    parts = parts[: len(parts) - left]
    return [parts[k::count] + pieces[k::count] for k in range(count)]


def halve(part: MicroBatch) -> list[MicroBatch]:
    """Return two pieces with half of the rows each; the part itself where it has one row."""
    rows = len(next(tensors(part.batch)))
    if rows < 2:
        return [part]
    return [
        MicroBatch(_each(part.batch, lambda tensor: tensor[begin:end]), (*part.position, i), part.weight)  # noqa: B023
        for i, (begin, end) in enumerate(_cuts(rows, 2))
    ]


def pin_memory(part: MicroBatch) -> MicroBatch:
    """Return ``part`` in pinned memory, from which a GPU can copy while it computes."""
    return part._replace(batch=_each(part.batch, Tensor.pin_memory))


def num_elements(part: MicroBatch) -> int:
    """Return the number of elements of the largest tensor: rows times length."""
    return max(tensor.numel() for tensor in tensors(part.batch))


def describe(part: MicroBatch) -> str:
    """Return a description such as ``128 rows of 31 and 29 tokens``."""
    found = list(tensors(part.batch))
    lengths, rows = dict.fromkeys(tensor.shape[1] for tensor in found if tensor.ndim == 2), len(found[0])
    return f"{rows} row{'s' if rows != 1 else ''} of {' and '.join(map(str, lengths))} tokens"


def tensors(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors of a batch, including those of nested parts; the first has the rows of the batch."""
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
