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
    """Room to spare, written in place. Rows and columns are moved when the next tokens come, all at once.

    It holds numbers, not their gradients.
    """

    def __init__(self, room: int) -> None:
        self.room, self.length = room, 0
        self.parts: Parts | None = None
        self.rows: Tensor | None = None  # as they are to be picked
        self.columns: Tensor | None = None  # likewise

    def extend(self, new: Parts, lasting: Tensor | None) -> Parts:
        start, end = self.length, self.length + len(new[0])
        if self.parts is None:
            self.parts = tuple(self.with_room(part, end, part.shape[1]) for part in new)
        elif self.rows is not None or self.columns is not None or end > len(self.parts[0]):
            self.parts = tuple(self.moved(part, end) for part in self.parts)
            self.rows = self.columns = None
        for part, fresh in zip(self.parts, new, strict=True):
            part[start:end] = fresh.detach()
        self.length, self.columns = (end, None) if lasting is None else (len(lasting), lasting)
        return tuple(part[:end] for part in self.parts)

    def moved(self, part: Tensor, needed: int) -> Tensor:
        rows = part.shape[1] if self.rows is None else len(self.rows)
        to = self.with_room(part, needed, rows)
        kept = part[: self.length] if self.columns is None else part.index_select(0, self.columns)
        if self.rows is None:
            to[: self.length] = kept
        else:
            torch.index_select(kept, 1, self.rows, out=to[: self.length])
        return to

    def with_room(self, like: Tensor, needed: int, rows: int) -> Tensor:
        room = self.room
        while room < needed:
            room *= 2
        return like.new_empty(room, rows, *like.shape[2:])

    def reorder(self, rows: Tensor) -> None:
        if self.parts is not None:
            self.rows = rows if self.rows is None else self.rows.index_select(0, rows)

    def rewind(self, tokens: int) -> None:
        self.length -= tokens
        if self.columns is not None:
            self.columns = self.columns[: self.length]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts or ())
