"""Where remembered numbers lie in memory.

A layout holds the parts of ``storage.py``, whatever they are, with time in front: (T, B, G, numbers). What a batch has
seen is then one piece of memory, to which a step adds at the end, and of which rows are picked in one pass.

B batch, G key/value heads, T length, K tokens remembered, R rows.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from dragoman.model.caches.storage import Parts


class MemoryLayout(ABC):
    @abstractmethod
    def extend(self, new: Parts, retained: Int[Tensor, " K"] | None) -> Parts:
        """Remember ``new``; return all there is, ``new`` at its end. Only the columns ``retained`` of it are asked for
        again; None: all of them."""

    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None: ...

    @abstractmethod
    def forget(self, retained: Int[Tensor, " K"]) -> None:
        """All columns but these."""

    @abstractmethod
    def join(self, other: "MemoryLayout") -> None:
        """Take in the rows of ``other``, behind these; the last columns of both become one, and zeros stand where one
        had none."""

    @abstractmethod
    def rewind(self, tokens: int) -> None:
        """Forget the newest."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Everything held: what is not in use yet, and what says where things are, too."""


class GrowingLayout(MemoryLayout):
    """Concatenate, and forget what is out of sight. The obvious implementation, and the reference for the others."""

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
    """Room to spare, written in place. Rows are moved when the next tokens come, however often they were reordered.

    It holds numbers, not their gradients.
    """

    def __init__(self, room: int) -> None:
        self.room, self.length = room, 0
        self.parts: Parts | None = None
        self.rows: Tensor | None = None  # where each row is to be found

    def extend(self, new: Parts, retained: Tensor | None) -> Parts:
        start, end = self.length, self.length + len(new[0])
        if self.parts is None:
            self.parts = tuple(self.empty(part, end, part.shape[1]) for part in new)
        elif self.rows is not None or end > len(self.parts[0]):
            self.parts, self.rows = tuple(self.moved(part, end) for part in self.parts), None
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
        assert self.parts is not None
        return self.parts[0].shape[1] if self.rows is None else len(self.rows)

    def moved(self, part: Tensor, needed: int) -> Tensor:
        to = self.empty(part, needed, self.count)
        self.move(part, to[: self.length])
        return to

    def move(self, part: Tensor, to: Tensor) -> None:
        """Every row, from where it is to be found."""
        if self.rows is None:
            to.copy_(part[: self.length])
        elif to.is_contiguous():
            torch.index_select(part[: self.length], 1, self.rows, out=to)
        else:
            to.copy_(part[: self.length].index_select(1, self.rows))

    def with_columns(self, part: Tensor, chosen: Int[Tensor, " K"]) -> Tensor:
        to = self.empty(part, len(chosen) + 1, part.shape[1])  # with room for the next token
        torch.index_select(part, 0, chosen, out=to[: len(chosen)])
        return to

    def empty(self, like: Tensor, needed: int, rows: int) -> Tensor:
        room = self.room
        while room < needed:
            room *= 2
        return like.new_empty(room, rows, *like.shape[2:])

    def reorder(self, rows: Tensor) -> None:
        if self.parts is not None:
            self.rows = rows if self.rows is None else self.rows.index_select(0, rows)

    def join(self, other: MemoryLayout) -> None:
        assert isinstance(other, PreallocatedLayout)
        assert self.parts is not None and other.parts is not None
        length, both = max(self.length, other.length), (self, other)
        rows = [buffers.count for buffers in both]
        parts = []
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            to = self.empty(mine, length + 1, sum(rows))
            for buffers, part, of in zip(both, (mine, theirs), to[:length].split(rows, dim=1), strict=True):
                of[: length - buffers.length] = 0
                buffers.move(part, of[length - buffers.length :])
            parts.append(to)
        self.parts, self.length, self.rows = tuple(parts), length, None

    def rewind(self, tokens: int) -> None:
        self.length -= tokens

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (*(self.parts or ()), *((self.rows,) if self.rows is not None else ())))
