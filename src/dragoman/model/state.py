"""What a layer remembers between decoding steps.

The model owns no state: each layer is handed one of these. An attention layer calls ``extend`` with the keys and values
of the tokens it has just seen and gets back everything it may attend to. Where those stand is the same for all layers
that see equally far, so a tower remembers it once for them, in ``TowerState.seen``.

B batch, G key/value heads, T length, K tokens remembered, C channels of one head, R rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.errors import ConfigError
from dragoman.model.places import Places
from dragoman.model.visibility import Visibility, still_visible


class KV(NamedTuple):
    k: Float[Tensor, "B G T C"]
    v: Float[Tensor, "B G T C"]

    def rows(self, chosen: Int[Tensor, " R"]) -> "KV":
        return KV(self.k.index_select(0, chosen), self.v.index_select(0, chosen))

    def columns(self, chosen: Int[Tensor, " K"]) -> "KV":
        return KV(self.k.index_select(2, chosen), self.v.index_select(2, chosen))

    @property
    def nbytes(self) -> int:
        return self.k.nbytes + self.v.nbytes


class LayerState(ABC):
    remembers = True
    """Whether tokens seen in one forward can still be seen in the next."""

    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Keep these batch rows, in this order; a row may be named more than once."""

    def rewind(self, tokens: int) -> None:
        """Forget the newest ``tokens``, as if they had never come.

        Caches of keys and values can; one that keeps a window can as long as it has kept ``TowerState.spare`` columns
        more than the window shows. A state that sums up the past cannot.

        Raises:
            ConfigError: this kind of state cannot.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot take tokens back, as speculative decoding has to: search without"
        )

    @property
    @abstractmethod
    def nbytes(self) -> int: ...


class KVState(LayerState):
    @abstractmethod
    def extend(self, new: KV, lasting: Int[Tensor, " K"] | None = None) -> KV:
        """Remember ``new``; return all that may be attended to, ``new`` at its end. ``lasting`` tells which columns of
        it can still be seen later: the others may be forgotten. None: all of them can."""


KVPolicy = Callable[[Visibility], KVState]
"""Makes the state of one attention layer, given what it may see."""


def stateless(visibility: Visibility) -> KVState:
    return Stateless()


def growing(visibility: Visibility) -> KVState:
    return Growing()


def preallocated(capacity: int) -> KVPolicy:
    """Buffers of ``capacity`` tokens; layers with a window keep that instead."""
    return lambda visibility: Preallocated(capacity) if visibility.window is None else Growing()


class Stateless(KVState):
    """Training, encoding and the uncached reference: remember nothing."""

    remembers = False

    def extend(self, new: KV, lasting: Tensor | None = None) -> KV:
        return new

    def reorder(self, rows: Tensor) -> None:
        pass

    def rewind(self, tokens: int) -> None:
        pass

    @property
    def nbytes(self) -> int:
        return 0


class Growing(KVState):
    """Concatenate, and forget what is out of sight. The obvious implementation, and the reference for the others."""

    def __init__(self) -> None:
        self.kv: KV | None = None

    def extend(self, new: KV, lasting: Tensor | None = None) -> KV:
        if self.kv is not None:
            new = KV(torch.cat([self.kv.k, new.k], dim=2), torch.cat([self.kv.v, new.v], dim=2))
        self.kv = new if lasting is None else new.columns(lasting)
        return new

    def reorder(self, rows: Tensor) -> None:
        if self.kv is not None:
            self.kv = self.kv.rows(rows)

    def rewind(self, tokens: int) -> None:
        if self.kv is not None:
            kept = self.kv.k.shape[2] - tokens
            self.kv = KV(self.kv.k[:, :, :kept], self.kv.v[:, :, :kept])

    @property
    def nbytes(self) -> int:
        return self.kv.nbytes if self.kv else 0


class Preallocated(KVState):
    """One buffer of fixed capacity, written in place; for layers that see the whole past."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self.buffer: KV | None = None

    def extend(self, new: KV, lasting: Tensor | None = None) -> KV:
        assert lasting is None, "this cache never forgets"
        start, end = self.length, self.length + new.k.shape[2]
        if end > self.capacity:
            raise ValueError(
                f"cache holds {self.capacity} tokens, {end} needed: raise its capacity or shorten the text"
            )
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

    def rewind(self, tokens: int) -> None:
        self.length -= tokens

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes if self.buffer else 0


class Seen(NamedTuple):
    """What layers of one visibility have before them in one forward."""

    places: Places
    """Of all that is remembered and of the newest tokens, which come last."""
    lasting: Int[Tensor, " K"] | None
    """Columns of ``places`` that can still be seen afterwards; None for all."""


class TowerState:
    """What a stack of layers remembers: the state of each, and where the tokens stand that they can still see."""

    def __init__(self, layers: Sequence[LayerState], visibilities: Iterable[Visibility]):
        self.layers = list(layers)
        self.length = 0
        """Tokens seen so far."""
        self.spare = 0
        """How many of them ``rewind`` may take back: what windows no longer show, they keep for so many tokens more."""
        self.newest: Places | None = None
        """Where the last ``spare`` + 1 of them stand."""
        self.seen: dict[Visibility, Places | None] = dict.fromkeys(visibilities)

    def advance(self, new: Places) -> dict[Visibility, Seen]:
        """Take note of ``new``; tell what layers of each visibility will see."""
        self.length += new.pos.shape[1]
        newest = new if self.newest is None else self.newest.followed_by(new)
        self.newest = newest.columns(slice(-1 - self.spare, None))
        now = {}
        for visibility, past in self.seen.items():
            places = new if past is None else past.followed_by(new)
            lasting = still_visible(visibility, places, self.spare) if self.remembers else None
            self.seen[visibility] = places if lasting is None else places.columns(lasting)
            now[visibility] = Seen(places, lasting)
        return now

    @property
    def last(self) -> Places | None:
        """Where the newest token stands."""
        return self.newest and self.newest.columns(slice(-1, None))

    def rewind(self, tokens: int) -> None:
        """Forget the newest ``tokens``, at most ``spare`` of them, as if they had never come."""
        assert self.newest is not None and 0 <= tokens <= self.spare, "spare must be set before the tokens come"
        if tokens == 0:
            return
        for layer in self.layers:
            layer.rewind(tokens)
        older = slice(None, -tokens)
        self.length, self.newest = self.length - tokens, self.newest.columns(older)
        self.seen = {visibility: places and places.columns(older) for visibility, places in self.seen.items()}

    @property
    def remembers(self) -> bool:
        return any(layer.remembers for layer in self.layers)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        for layer in self.layers:
            layer.reorder(rows)
        self.newest = self.newest and self.newest.rows(rows)
        self.seen = {visibility: places and places.rows(rows) for visibility, places in self.seen.items()}

    @property
    def nbytes(self) -> int:
        places = sum(places.nbytes for places in self.seen.values() if places)
        return places + sum(layer.nbytes for layer in self.layers)
