"""Several steps of a search in one call of C (``native/walk.c``): the model reads, the search chooses, rows move.

R rows.
"""

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.model.inference.slots import SlotPool, Slots, StepKernel

STEPS = 32
"""Most steps of a call: until it ends, nothing can be shown or interrupted."""
ROW_STEPS = 4096
"""Most steps times rows."""


class WalkStruct(ctypes.Structure):
    """Struct ``Walk`` of native/walk.c."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("model", "state", "spare_table", "spare_length")),
        *((name, ctypes.c_int64) for name in ("most", "few", "columns")),
        *((name, ctypes.c_void_p) for name in ("token", "continued", "ended")),
        *((name, ctypes.c_int64) for name in ("steps", "left")),
    ]


class Walked(NamedTuple):
    """The outcome of a walk."""

    token: Int[Tensor, " R"]
    """The tokens chosen last, one for each row that goes on."""
    left: int
    """Sentences that go on."""
    continued: list[int]
    """Rows that continued after each step; empty for a search without beams."""
    ended: list[int]
    """Hypotheses of a beam search that ended at each step; of a greedy search the sentences that made it."""


def most_steps(pool: SlotPool, rows: int, wanted: int) -> int:
    """Return the number of steps of one call, for ``rows`` rows that will make no more than ``wanted``."""
    room = wanted if pool.capacity is None else (pool.capacity - pool.used) // rows
    return max(1, min(STEPS, ROW_STEPS // rows, room, wanted))


def walk(
    function: Callable[[int, int], None],
    search: ctypes.Structure,
    model: StepKernel,
    state: Slots,
    token: Int[Tensor, " R"],
    *,
    rows: int,
    steps: int,
    few: int,
) -> Walked:
    """Make several steps of a search; then ``state`` is where the search is.

    Args:
        function: of the library of kernels, ``walk_beam`` or ``walk_greedy``.
        search: the struct of the search that it takes besides ``Walk``.
        token: the tokens to read first.
        rows: most rows at any step.
        steps: most steps.
        few: the walk ends when no more than so many sentences are left.

    Raises:
        MemoryError: as ``SlotPool.make_room``.
    """
    R, columns = len(token), state.columns
    room = columns + steps
    if not columns:
        state.begin(R)
    state.pool.make_room(rows * steps, rows)
    model.ensure_positions(room)
    tables, lengths = torch.empty(2, rows, room, dtype=torch.int32), torch.zeros(2, rows, dtype=torch.int32)
    if columns:
        tables[0, :R, :columns], lengths[0, :R] = state.table[:, :columns], state.lengths
    tokens, counts = torch.empty(rows, dtype=torch.long), torch.empty(2, steps, dtype=torch.long)
    tokens[:R] = token
    first, spare = ((tables.data_ptr() + size * room, lengths.data_ptr() + size) for size in (0, 4 * rows))
    struct = state.struct(*first, room)
    made = WalkStruct(
        *(model.address, ctypes.addressof(struct), *spare),
        *(steps, few, columns),
        *(tokens.data_ptr(), counts.data_ptr(), counts.data_ptr() + 8 * steps),
    )
    function(ctypes.addressof(made), ctypes.addressof(search))
    left, state.beams, state.columns, state.pool.used = made.left, struct.beams, made.columns, struct.used
    now, R = int(struct.table != first[0]), left * state.beams
    if left:
        state.table, state.lengths = tables[now, :R], lengths[now, :R]
        if state.source is not None:
            state.first, state.count = state.first[:left], state.count[:left]
    else:
        state.clear()
    continued, ended = counts[:, : made.steps].tolist()
    return Walked(tokens[:R], left, continued, ended)
