"""What a layer remembers between decoding steps.

The model owns no state: each layer is handed one of these. An attention layer calls ``extend`` with the keys and values
of the tokens it has just seen and gets back everything it may attend to. Where those stand is the same for all layers,
so a tower remembers it once, in ``TowerState.places``.

B batch, G key/value heads, T length, C channels of one head, R rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.model.visibility import Places, Visibility


class KV(NamedTuple):
    k: Float[Tensor, "B G T C"]
    v: Float[Tensor, "B G T C"]

    def rows(self, rows: Int[Tensor, " R"]) -> "KV":
        return KV(self.k.index_select(0, rows), self.v.index_select(0, rows))

    @property
    def nbytes(self) -> int:
        return self.k.nbytes + self.v.nbytes


class LayerState(ABC):
    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Keep these batch rows, in this order; a row may be named more than once."""

    @property
    @abstractmethod
    def nbytes(self) -> int: ...


class KVState(LayerState):
    @abstractmethod
    def extend(self, new: KV) -> KV:
        """Remember ``new``; return all that may be attended to, ``new`` at its end."""

    def columns(self, past: int, total: int) -> slice | Int[Tensor, " K"]:
        """Which of ``total`` tokens ``extend`` will return once those after the ``past`` first are added."""
        return slice(0, total)


KVPolicy = Callable[[Visibility], KVState]
"""Makes the state of one attention layer, given what it may see."""


def stateless(visibility: Visibility) -> KVState:
    return Stateless()


def growing(visibility: Visibility) -> KVState:
    if visibility.window is None:
        return Growing()
    return Window(visibility.window, visibility.sinks)


def preallocated(capacity: int) -> KVPolicy:
    """Buffers of ``capacity`` tokens; layers with a window keep that instead."""
    return lambda visibility: Preallocated(capacity) if visibility.window is None else growing(visibility)


class Stateless(KVState):
    """Training, encoding and the uncached reference: remember nothing."""

    def extend(self, new: KV) -> KV:
        return new

    def reorder(self, rows: Tensor) -> None:
        pass

    @property
    def nbytes(self) -> int:
        return 0


class Growing(KVState):
    """Concatenate. The obvious implementation, and the reference for the others."""

    def __init__(self) -> None:
        self.kv: KV | None = None

    def extend(self, new: KV) -> KV:
        if self.kv is not None:
            new = KV(torch.cat([self.kv.k, new.k], dim=2), torch.cat([self.kv.v, new.v], dim=2))
        self.kv = new
        return new

    def reorder(self, rows: Tensor) -> None:
        if self.kv is not None:
            self.kv = self.kv.rows(rows)

    @property
    def nbytes(self) -> int:
        return self.kv.nbytes if self.kv else 0


class Window(Growing):
    """The first ``sinks`` tokens and those a window of ``size`` can still reach. Exact for attention that sees no more."""

    def __init__(self, size: int, sinks: int = 0) -> None:
        super().__init__()
        self.back, self.sinks = size - 1, sinks

    def extend(self, new: KV) -> KV:
        seen = super().extend(new)
        T = seen.k.shape[2]
        if T > self.sinks + self.back:
            kept = torch.cat([torch.arange(self.sinks), torch.arange(T - self.back, T)]).to(seen.k.device)
            self.kv = KV(seen.k.index_select(2, kept), seen.v.index_select(2, kept))
        return seen

    def columns(self, past: int, total: int) -> slice | Tensor:
        if past <= self.sinks + self.back:
            return slice(0, total)
        return torch.cat([torch.arange(self.sinks), torch.arange(past - self.back, total)])


class Preallocated(KVState):
    """One buffer of fixed capacity, written in place."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self.buffer: KV | None = None

    def extend(self, new: KV) -> KV:
        start, end = self.length, self.length + new.k.shape[2]
        if end > self.capacity:
            raise ValueError(f"cache holds {self.capacity} tokens, {end} needed: raise the capacity or shorten the text")
        if self.buffer is None:
            B, G, _, C = new.k.shape
            self.buffer = KV(new.k.new_empty(B, G, self.capacity, C), new.v.new_empty(B, G, self.capacity, C))
        k, v = self.buffer
        k[:, :, start:end], v[:, :, start:end] = new
        self.length = end
        return KV(k[:, :, :end], v[:, :, :end])

    def reorder(self, rows: Tensor) -> None:
        if self.buffer is not None:
            self.buffer = self.buffer.rows(rows)

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes if self.buffer else 0


class TowerState:
    """What a stack of layers remembers: the state of each, and where the tokens seen so far stand."""

    def __init__(self, layers: Sequence[LayerState]):
        self.layers = list(layers)
        self.places: Places | None = None

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return 0 if self.places is None else self.places.pos.shape[1]

    def extend(self, new: Places) -> Places:
        self.places = new if self.places is None else self.places.followed_by(new)
        return self.places

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        for layer in self.layers:
            layer.reorder(rows)
        self.places = self.places and self.places.rows(rows)

    @property
    def nbytes(self) -> int:
        places = sum(t.nbytes for t in self.places or () if t is not None)
        return places + sum(layer.nbytes for layer in self.layers)
