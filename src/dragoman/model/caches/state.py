"""State of layers between decoding steps.

The model owns no state: each layer is passed one of these. An attention layer calls ``extend`` with the keys and values
of the newest tokens, which returns all that it may attend to. Positions are the same for all layers of equal
visibility, so a tower stores them once, in ``TowerState.visible``.

K cached tokens, R rows.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

from dragoman.errors import ConfigError
from dragoman.model.caches.storage import KV, Stored, Unchanged
from dragoman.model.masks.visibility import VisibilityRule, retained_columns
from dragoman.model.positions.tokens import Positions


class LayerState(ABC):
    """Interface of a layer's state."""

    remembers = True
    """True where tokens of one forward are visible in the next."""

    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Keep these batch rows, in this order; a row may be named more than once."""

    @abstractmethod
    def join(self, other: "LayerState") -> None:
        """Append the rows of ``other``. Both are aligned at the newest token. Missing columns may hold any finite
        value: they are masked."""

    def forget(self, retained: Int[Tensor, " K"]) -> None:
        """Drop all columns except ``retained``, which alone are still visible. A state that summarizes the past has no
        columns."""
        return

    def allow_rewind(self, tokens: int) -> None:
        """Keep what ``rewind`` of up to ``tokens`` tokens needs, from now on. Caches with columns keep it anyway."""
        return

    def rewind(self, tokens: int) -> None:
        """Remove the newest ``tokens``, as if they had never been read.

        Caches of keys and values can do this; one with a window can if it has kept ``TowerState.rewindable`` columns
        beyond the window. A state that summarizes the past can if it has kept older summaries (``SummaryState``).

        Raises:
            ConfigError: this kind of state cannot rewind.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot take tokens back, as speculative decoding must: decode without it"
        )

    @property
    @abstractmethod
    def nbytes(self) -> int: ...


class KVState(LayerState):
    """Cache of the keys and values of an attention layer."""

    @abstractmethod
    def extend(self, new: KV, retained: Int[Tensor, " K"] | None = None) -> KV:
        """Append ``new``; return everything that may be attended to, ``new`` at its end.

        ``retained`` are the columns of the result that are still visible later, None for all: the others may be
        dropped.
        """

    def forget(self, retained: Int[Tensor, " K"]) -> None:
        """Drop all columns except ``retained``."""
        raise NotImplementedError(f"{type(self).__name__} forgets nothing")


class KVPolicy(ABC):
    """Policy that gives each layer its cache."""

    remembers = True
    """True where layers keep anything between forwards."""

    def restricted(self, visibility: VisibilityRule) -> VisibilityRule:
        """Return the visibility that the cache leaves of the layer's own; the default is all of it."""
        return visibility

    @abstractmethod
    def new_state(self, visibility: VisibilityRule) -> KVState:
        """Return an empty cache for an attention layer of that visibility."""

    def store(self, kv: KV) -> Stored:
        """Store the keys and values of an encoded source, for one layer."""
        return Stored.of(kv, Unchanged())


class Stateless(KVState):
    """Cache that keeps nothing."""

    remembers = False

    def extend(self, new: KV, retained: Tensor | None = None) -> KV:
        return new

    def forget(self, retained: Tensor) -> None:
        pass

    def reorder(self, rows: Tensor) -> None:
        pass

    def join(self, other: LayerState) -> None:
        pass

    def rewind(self, tokens: int) -> None:
        pass

    @property
    def nbytes(self) -> int:
        return 0


class StatelessPolicy(KVPolicy):
    """No cache: for training, encoding and the uncached reference."""

    remembers = False

    def new_state(self, visibility: VisibilityRule) -> KVState:
        return Stateless()


stateless = StatelessPolicy()


class VisibleKeys(NamedTuple):
    """Keys that layers of one visibility may attend to in one forward."""

    positions: Positions
    """Positions of all cached and newest tokens, the newest last."""
    retained: Int[Tensor, " K"] | None
    """Columns of ``positions`` that are still visible afterwards; None for all."""
    visibility: VisibilityRule
    """Visibility of the layer, or a smaller one where its cache drops tokens sooner."""


class TowerState:
    """State of a stack of layers: that of each layer, and the positions of the tokens still visible."""

    def __init__(self, layers: Sequence[LayerState], visibilities: Iterable[VisibilityRule]):
        """
        Args:
            layers: the state of each layer.
            visibilities: visibility of each layer when decoded with these states.
        """
        self.layers, self.visibilities = list(layers), list(visibilities)
        self.length = 0
        """Number of tokens so far."""
        self.rewindable = 0
        """Number of tokens that ``rewind`` may remove: windows keep that many more columns than they show. Set by
        ``allow_rewind``."""
        self.newest: Positions | None = None
        """Positions of the last ``rewindable`` + 1 tokens."""
        self.visible: dict[VisibilityRule, Positions | None] = dict.fromkeys(self.visibilities)

    def advance(self, new: Positions) -> dict[VisibilityRule, VisibleKeys]:
        """Append ``new``; return the visible keys for layers of each visibility."""
        self.length += new.pos.shape[1]
        newest = new if self.newest is None else self.newest.followed_by(new)
        self.newest = newest.select_columns(slice(-1 - self.rewindable, None))
        now = {}
        for visibility, past in self.visible.items():
            positions = new if past is None else past.followed_by(new)
            retained = retained_columns(visibility, positions, self.rewindable) if self.remembers else None
            self.visible[visibility] = positions if retained is None else positions.select_columns(retained)
            now[visibility] = VisibleKeys(positions, retained, visibility)
        return now

    @property
    def last(self) -> Positions | None:
        """Position of the newest token; None before the first."""
        return self.newest and self.newest.select_columns(slice(-1, None))

    def allow_rewind(self, tokens: int) -> None:
        """Keep what is needed to take back up to ``tokens`` tokens, from now on."""
        self.rewindable = tokens
        for layer in self.layers:
            layer.allow_rewind(tokens)

    def rewind(self, tokens: int) -> None:
        """Remove the newest ``tokens``, at most ``rewindable``, as if they had never been read."""
        assert self.newest is not None and 0 <= tokens <= self.rewindable, (
            "rewindable must be set before the tokens are read"
        )
        if tokens == 0:
            return
        for layer in self.layers:
            layer.rewind(tokens)
        older = slice(None, -tokens)
        self.length, self.newest = self.length - tokens, self.newest.select_columns(older)
        self.visible = {
            visibility: positions and positions.select_columns(older) for visibility, positions in self.visible.items()
        }

    def fork(self, tokens: int) -> "TowerState | None":
        """Return a copy that has read only the first ``tokens``; None where a layer keeps no tokens apart, or has
        dropped some."""
        if not all(isinstance(layer, KVState) and layer.remembers for layer in self.layers):
            return None
        if any(positions is None or positions.pos.shape[1] < self.length for positions in self.visible.values()):
            return None
        forked, older = TowerState(copy.deepcopy(self.layers), self.visibilities), slice(None, tokens)
        for layer in forked.layers:
            layer.rewind(self.length - tokens)
        forked.length = tokens
        forked.visible = {v: positions and positions.select_columns(older) for v, positions in self.visible.items()}
        last = next(iter(forked.visible.values()))
        forked.newest = last and last.select_columns(slice(-1, None))
        return forked

    @property
    def remembers(self) -> bool:
        return any(layer.remembers for layer in self.layers)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        for layer in self.layers:
            layer.reorder(rows)
        self.newest = self.newest and self.newest.select_rows(rows)
        self.visible = {
            visibility: positions and positions.select_rows(rows) for visibility, positions in self.visible.items()
        }

    def join(self, other: "TowerState", rows: int, rows_of_other: int) -> None:
        """Append the rows of ``other`` with their caches, as if all had been one batch: both are aligned at the newest
        token, and the shorter one is padded in front."""
        for state in (self, other):
            state.forget_unseen()
        assert self.newest is not None and other.newest is not None
        for visibility, mine in self.visible.items():
            theirs = other.visible[visibility]
            assert mine is not None and theirs is not None
            longest = max(mine.pos.shape[1], theirs.pos.shape[1])
            a, b = (positions.pad(front=longest - positions.pos.shape[1]) for positions in (mine, theirs))
            self.visible[visibility] = a.stack_rows(b, rows, rows_of_other)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.join(theirs)
        self.newest = self.newest.stack_rows(other.newest, rows, rows_of_other)
        self.length = max(self.length, other.length)

    def forget_unseen(self) -> None:
        """Drop columns that are padding in every row, left over from rows that are gone."""
        assert self.newest is not None, "nothing has been seen"
        self.length = int(self.newest.pos.max()) + 1
        retained: dict[VisibilityRule, Tensor] = {}
        for visibility, positions in self.visible.items():
            if positions is not None and positions.keep is not None and not (real := positions.keep.any(dim=0)).all():
                retained[visibility] = real.nonzero().squeeze(1)
                self.visible[visibility] = positions.select_columns(retained[visibility])
        for layer, visibility in zip(self.layers, self.visibilities, strict=True):
            if visibility in retained:
                layer.forget(retained[visibility])

    @property
    def nbytes(self) -> int:
        positions = sum(positions.nbytes for positions in (*self.visible.values(), self.newest) if positions)
        return positions + sum(layer.nbytes for layer in self.layers)
