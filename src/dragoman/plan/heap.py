"""Memory that a CPU process occupies for what it holds: more than it holds, since the C library cannot use every gap.

PyTorch asks for blocks that begin at a multiple of 64 bytes. glibc (2.36, as ``machine.keep_memory`` sets it) takes the
smallest gap of the block's size and 96 bytes more, and frees what is left over at both ends. Small objects of the same
operations take these ends and live on. A freed block is therefore no longer large enough for the next one of its size,
until what was allocated beside it is freed as well.

Which small object takes which end is chance: to leave out one in 500 of them, in a replay of every allocation that a
process made, moved the peak by up to 6% either way. So the small objects are not followed, but how long they live on.
Where the forward pass runs, also once more for activation checkpointing, each operation leaves nodes of autograd's
graph and what these keep. The backward pass makes no graph: its small objects go with their tensor, or a little later.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable

from dragoman.plan.live import LiveBytes

ALIGNING = 96
"""Bytes that an aligned block needs besides its own."""
SMALLEST = 1024
"""Bytes of the smallest block that is followed; smaller ones fill gaps."""
NEIGHBOURS, NO_GRAPH = 2, (0, 1, 2, 3)
"""Number of later allocations among which the longest-lived tells how long the small objects of an operation live,
where autograd makes nodes; and numbers that take turns where it makes none. Chosen by measurements
(benchmarks/plan.py)."""
STEPS = 2
"""Number of steps after which a process no longer grows: the optimizer's state is allocated in the first."""


class Heap:
    """Blocks and gaps, in order of address."""

    def __init__(self):
        self.top = self.largest = 0
        """End of the last block, and the largest it was."""
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._gaps: list[tuple[int, int]] = []
        """Gaps as (size, start), smallest first."""
        self._blocks: dict[int, int] = {}

    def allocate(self, nbytes: int, ends: int = 0) -> int:
        """Return the start of a block in the smallest gap that takes it; its last ``ends`` bytes are a block of their
        own."""
        size = -(-(nbytes + 8) // 16) * 16 + ALIGNING
        i = bisect_left(self._gaps, (size, 0))
        if i < len(self._gaps):
            gap, start = self._gaps[i]
            self._close(start, gap)
            if gap > size:
                self._open(start + size, gap - size)
        else:
            start, self.top = self.top, self.top + size
            self.largest = max(self.largest, self.top)
        self._blocks[start] = size - ends
        if ends:
            self._blocks[start + size - ends] = ends
        return start

    def end_of(self, start: int) -> int:
        """Return the address at which the block at ``start`` ends."""
        return start + self._blocks[start]

    def free(self, start: int) -> None:
        """Free a block and merge it with the gaps beside it."""
        size = self._blocks.pop(start)
        if start in self._ends:
            before = self._ends[start]
            size += start - before
            start = self._close(before, start - before)
        if start + size in self._starts:
            behind = self._starts[start + size]
            self._close(start + size, behind)
            size += behind
        if start + size == self.top:
            self.top = start
        else:
            self._open(start, size)

    def _open(self, start: int, size: int) -> None:
        self._starts[start], self._ends[start + size] = size, start
        insort(self._gaps, (size, start))

    def _close(self, start: int, size: int) -> int:
        del self._starts[start], self._ends[start + size]
        del self._gaps[bisect_left(self._gaps, (size, start))]
        return start


def occupied(before: Iterable[int], step: LiveBytes, after: Iterable[int]) -> int:
    """Return the most bytes that a process occupies which allocates ``before`` (weights), makes a ``step``, allocates
    ``after`` (the optimizer's state) and makes further steps; gradients live until the next step begins."""
    heap, events = Heap(), _events(step)
    for nbytes in before:
        heap.allocate(nbytes)
    gradients: list[int] = []
    for number in range(STEPS):
        for start in gradients:
            heap.free(start)
        gradients = _run(heap, step, events)
        if not number:
            for nbytes in after:
                heap.allocate(nbytes)
    return heap.largest


_ALLOCATED, _FREED, _ENDS_FREED = range(3)


def _events(step: LiveBytes) -> list[tuple[float, int, int]]:
    """Return (moment, kind, number of the allocation), in order."""
    found: list[tuple[float, int, int]] = []
    allocations = step.allocations
    for i, made in enumerate(allocations):
        if made.nbytes < SMALLEST:
            continue
        found.append((made.created, _ALLOCATED, i))
        if made.released is not None:
            found.append((made.released, _FREED, i))
        later = NEIGHBOURS if made.forward or made.recomputed else NO_GRAPH[i % len(NO_GRAPH)]
        near = (other.released for other in allocations[i : i + later + 1])
        released = max((moment for moment in near if moment is not None), default=0)
        found.append((max(released, made.created) + 0.5, _ENDS_FREED, i))
    return sorted(found)


def _run(heap: Heap, step: LiveBytes, events: list[tuple[float, int, int]]) -> list[int]:
    """Make a step; return where its gradients are."""
    blocks: dict[int, int] = {}
    ends: dict[int, int] = {}
    for _, kind, i in events:
        if kind == _ALLOCATED:
            blocks[i] = heap.allocate(step.allocations[i].nbytes, ALIGNING)
            ends[i] = heap.end_of(blocks[i])
        else:
            heap.free((blocks if kind == _FREED else ends).pop(i))
    gradients = []
    for i, start in blocks.items():
        if step.allocations[i].gradient:
            gradients.append(start)
        else:
            heap.free(start)
    return gradients
