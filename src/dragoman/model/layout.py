"""Where remembered numbers lie in memory.

A layout holds the parts of ``storage.py``, whatever they are, with time in front: (T, B, G, numbers). What a batch has
seen is then one piece of memory, to which a step adds at the end, and of which rows are picked in one pass.

B batch, G key/value heads, T length, K tokens remembered, R rows.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.model.storage import Parts


class Layout(ABC):
    @abstractmethod
    def extend(self, new: Parts, lasting: Int[Tensor, " K"] | None) -> Parts:
        """Remember ``new``; return all there is, ``new`` at its end. Only the columns ``lasting`` of it are asked for
        again; None: all of them."""

    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None: ...

    @abstractmethod
    def rewind(self, tokens: int) -> None:
        """Forget the newest."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Everything held: what is not in use yet, and what says where things are, too."""


class Joined(Layout):
    """Concatenate, and forget what is out of sight. The obvious implementation, and the reference for the others."""

    def __init__(self) -> None:
        self.parts: Parts | None = None

    def extend(self, new: Parts, lasting: Tensor | None) -> Parts:
        seen = new if self.parts is None else tuple(torch.cat(pair) for pair in zip(self.parts, new, strict=True))
        self.parts = seen if lasting is None else tuple(part.index_select(0, lasting) for part in seen)
        return seen

    def reorder(self, rows: Tensor) -> None:
        self.parts = self.parts and tuple(part.index_select(1, rows) for part in self.parts)

    def rewind(self, tokens: int) -> None:
        self.parts = self.parts and tuple(part[: len(part) - tokens] for part in self.parts)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts or ())


class Buffers(Layout):
    """Room to spare, written in place. Rows are moved when the next tokens come, however often they were reordered.

    It holds numbers, not their gradients.
    """

    def __init__(self, room: int) -> None:
        self.room, self.length = room, 0
        self.parts: Parts | None = None
        self.rows: Tensor | None = None  # where each row is to be found

    def extend(self, new: Parts, lasting: Tensor | None) -> Parts:
        start, end = self.length, self.length + len(new[0])
        if self.parts is None:
            self.parts = tuple(self.empty(part, end, part.shape[1]) for part in new)
        elif self.rows is not None or end > len(self.parts[0]):
            self.parts, self.rows = tuple(self.moved(part, end) for part in self.parts), None
        for part, fresh in zip(self.parts, new, strict=True):
            part[start:end] = fresh.detach()
        seen, self.length = tuple(part[:end] for part in self.parts), end
        if lasting is not None:
            self.parts, self.length = tuple(self.with_columns(part, lasting) for part in seen), len(lasting)
        return seen

    def moved(self, part: Tensor, needed: int) -> Tensor:
        old, rows = part[: self.length], self.rows
        to = self.empty(part, needed, part.shape[1] if rows is None else len(rows))
        if rows is None:
            to[: self.length] = old
        else:
            torch.index_select(old, 1, rows, out=to[: self.length])
        return to

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

    def rewind(self, tokens: int) -> None:
        self.length -= tokens

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (*(self.parts or ()), *((self.rows,) if self.rows is not None else ())))
