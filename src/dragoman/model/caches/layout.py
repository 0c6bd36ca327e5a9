"""Layout of cached keys and values in memory.

A layout holds the parts of ``storage.py`` with time first: (T, B, G, numbers). The cache of a batch is then one block
of memory: a step appends at its end, and rows are selected in one pass.

B batch, G key/value heads, T length, K cached tokens, R rows.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from dragoman.model.caches.storage import Parts


class MemoryLayout(ABC):
    """Interface of the layouts."""

    @abstractmethod
    def extend(self, new: Parts, retained: Int[Tensor, " K"] | None) -> Parts:
        """Append ``new`` and return everything, ``new`` at its end; keep only the columns ``retained`` (None for
        all)."""

    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None: ...

    @abstractmethod
    def forget(self, retained: Int[Tensor, " K"]) -> None:
        """Drop all columns except ``retained``."""

    @abstractmethod
    def join(self, other: "MemoryLayout") -> None:
        """Append the rows of ``other``; both are aligned at the last column, and the shorter one is padded with
        zeros in front."""

    @abstractmethod
    def rewind(self, tokens: int) -> None:
        """Drop the newest ``tokens`` columns."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held, including unused capacity and tables."""


class GrowingLayout(MemoryLayout):
    """Concatenate at each step: the simplest implementation, and the reference for the others."""

    def __init__(self) -> None:
        self.parts: Parts | None = None

    def extend(self, new: Parts, retained: Tensor | None) -> Parts:
        seen = new if self.parts is None else tuple(torch.cat(pair) for pair in zip(self.parts, new, strict=True))
        self.parts = seen
        if retained is not None:
            self.forget(retained)
        return seen

    def forget(self, retained: Tensor) -> None:
        self.parts = self.parts and tuple(part.index_select(0, retained) for part in self.parts)

    def reorder(self, rows: Tensor) -> None:
        self.parts = self.parts and tuple(part.index_select(1, rows) for part in self.parts)

    def join(self, other: MemoryLayout) -> None:
        assert isinstance(other, GrowingLayout)
        assert self.parts is not None and other.parts is not None
        longest = max(len(self.parts[0]), len(other.parts[0]))
        padded = (
            [F.pad(part, (*[0] * 6, longest - len(part), 0)) for part in parts] for parts in (self.parts, other.parts)
        )
        self.parts = tuple(torch.cat(pair, dim=1) for pair in zip(*padded, strict=True))

    def rewind(self, tokens: int) -> None:
        self.parts = self.parts and tuple(part[: len(part) - tokens] for part in self.parts)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts or ())


class PreallocatedLayout(MemoryLayout):
    """Buffer written in place. Rows are copied once, when the next tokens come, however often they were reordered.

    It does not carry gradients.
    """

    def __init__(self, initial_capacity: int) -> None:
        self.initial_capacity, self.length = initial_capacity, 0
        self.parts: Parts | None = None
        self.row_index: Tensor | None = None  # index in ``parts`` of each row; None: in order

    def extend(self, new: Parts, retained: Tensor | None) -> Parts:
        start, end = self.length, self.length + len(new[0])
        if self.parts is None:
            self.parts = tuple(self.empty(part, end, part.shape[1]) for part in new)
        elif self.row_index is not None or end > len(self.parts[0]):
            self.parts, self.row_index = tuple(self.grown(part, end) for part in self.parts), None
        for part, fresh in zip(self.parts, new, strict=True):
            part[start:end] = fresh.detach()
        seen, self.length = tuple(part[:end] for part in self.parts), end
        if retained is not None:
            self.forget(retained)
        return seen

    def forget(self, retained: Tensor) -> None:
        if self.parts is not None:
            self.parts = tuple(self.with_columns(part[: self.length], retained) for part in self.parts)
            self.length = len(retained)

    @property
    def count(self) -> int:
        """Number of rows."""
        assert self.parts is not None
        return self.parts[0].shape[1] if self.row_index is None else len(self.row_index)

    def grown(self, part: Tensor, needed: int) -> Tensor:
        to = self.empty(part, needed, self.count)
        self.copy_rows(part, to[: self.length])
        return to

    def copy_rows(self, part: Tensor, to: Tensor) -> None:
        """Copy every row of ``part`` to ``to``, in the order of ``row_index``."""
        if self.row_index is None:
            to.copy_(part[: self.length])
        elif to.is_contiguous():
            torch.index_select(part[: self.length], 1, self.row_index, out=to)
        else:
            to.copy_(part[: self.length].index_select(1, self.row_index))

    def with_columns(self, part: Tensor, chosen: Int[Tensor, " K"]) -> Tensor:
        to = self.empty(part, len(chosen) + 1, part.shape[1])  # with room for the next token
        torch.index_select(part, 0, chosen, out=to[: len(chosen)])
        return to

    def empty(self, like: Tensor, needed: int, rows: int) -> Tensor:
        initial_capacity = self.initial_capacity
        while initial_capacity < needed:
            initial_capacity *= 2
        return like.new_empty(initial_capacity, rows, *like.shape[2:])

    def reorder(self, rows: Tensor) -> None:
        if self.parts is not None:
            self.row_index = rows if self.row_index is None else self.row_index.index_select(0, rows)

    def join(self, other: MemoryLayout) -> None:
        assert isinstance(other, PreallocatedLayout)
        assert self.parts is not None and other.parts is not None
        length, both = max(self.length, other.length), (self, other)
        rows = [layout.count for layout in both]
        parts = []
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            to = self.empty(mine, length + 1, sum(rows))
            for layout, part, of in zip(both, (mine, theirs), to[:length].split(rows, dim=1), strict=True):
                of[: length - layout.length] = 0
                layout.copy_rows(part, of[length - layout.length :])
            parts.append(to)
        self.parts, self.length, self.row_index = tuple(parts), length, None

    def rewind(self, tokens: int) -> None:
        self.length -= tokens

    @property
    def nbytes(self) -> int:
        return sum(
            part.nbytes for part in (*(self.parts or ()), *((self.row_index,) if self.row_index is not None else ()))
        )
