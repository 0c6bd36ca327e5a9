"""What a layer remembers between decoding steps.

The model owns no state: each layer is handed one of these. An attention layer calls ``extend`` with the keys and values
of the tokens it has just seen and gets back everything it may attend to. Where those stand is the same for all layers
that see equally far, so a tower remembers it once for them, in ``TowerState.seen``.

K tokens remembered, R rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

from dragoman.errors import ConfigError
from dragoman.model.caches.storage import KV, Stored, Unchanged
from dragoman.model.masks.visibility import Visibility, retained_columns
from dragoman.model.positions.tokens import Positions


class LayerState(ABC):
    remembers = True
    """Whether tokens seen in one forward can still be seen in the next."""

    @abstractmethod
    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Keep these batch rows, in this order; a row may be named more than once."""

    @abstractmethod
    def join(self, other: "LayerState") -> None:
        """Take in the rows of ``other``, behind these: the newest tokens of both stand side by side. Where one has
        nothing beside what the other remembers there may be anything finite, for nobody looks at it."""

    def forget(self, retained: Int[Tensor, " K"]) -> None:
        """Drop all columns but these, which alone can still be seen. A state that sums up the past has no columns."""
        return

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
    def extend(self, new: KV, retained: Int[Tensor, " K"] | None = None) -> KV:
        """Remember ``new``; return all that may be attended to, ``new`` at its end. ``retained`` tells which columns of
        it can still be seen later: the others may be forgotten. None: all of them can."""

    def forget(self, retained: Int[Tensor, " K"]) -> None:
        """All but these columns, which alone can still be seen."""
        raise NotImplementedError(f"{type(self).__name__} forgets nothing")


class KVPolicy(ABC):
    """What attention layers keep, and how."""

    remembers = True
    """Whether anything is kept between forwards, by whatever layer."""

    def restricted(self, visibility: Visibility) -> Visibility:
        """What tokens see of what their layer would let them see: as a rule, all of it."""
        return visibility

    @abstractmethod
    def new_state(self, visibility: Visibility) -> KVState:
        """Of one attention layer, whose tokens see each other so."""

    def keep(self, kv: KV) -> Stored:
        """Keys and values of an encoded source, for one layer."""
        return Stored.of(kv, Unchanged())


class Stateless(KVState):
    """Remembers nothing."""

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


class Nothing(KVPolicy):
    """Training, encoding and the uncached reference."""

    remembers = False

    def new_state(self, visibility: Visibility) -> KVState:
        return Stateless()


stateless = Nothing()


class VisibleKeys(NamedTuple):
    """What layers of one visibility have before them in one forward."""

    positions: Positions
    """Of all that is remembered and of the newest tokens, which come last."""
    retained: Int[Tensor, " K"] | None
    """Columns of ``positions`` that can still be seen afterwards; None for all."""
    visibility: Visibility
    """Which tokens are seen: as the layer has it, or fewer where its cache forgets sooner."""


class TowerState:
    """What a stack of layers remembers: the state of each, and where the tokens stand that they can still see."""

    def __init__(self, layers: Sequence[LayerState], visibilities: Iterable[Visibility]):
        """
        Args:
            layers: the state of each layer.
            visibilities: which tokens each of them sees, now that it is decoded with these states.
        """
        self.layers, self.visibilities = list(layers), list(visibilities)
        self.length = 0
        """Tokens seen so far."""
        self.spare = 0
        """How many of them ``rewind`` may take back: what windows no longer show, they keep for so many tokens more."""
        self.newest: Positions | None = None
        """Where the last ``spare`` + 1 of them stand."""
        self.seen: dict[Visibility, Positions | None] = dict.fromkeys(self.visibilities)

    def advance(self, new: Positions) -> dict[Visibility, VisibleKeys]:
        """Take note of ``new``; tell what layers of each visibility will see."""
        self.length += new.pos.shape[1]
        newest = new if self.newest is None else self.newest.followed_by(new)
        self.newest = newest.columns(slice(-1 - self.spare, None))
        now = {}
        for visibility, past in self.seen.items():
            positions = new if past is None else past.followed_by(new)
            retained = retained_columns(visibility, positions, self.spare) if self.remembers else None
            self.seen[visibility] = positions if retained is None else positions.columns(retained)
            now[visibility] = VisibleKeys(positions, retained, visibility)
        return now

    @property
    def last(self) -> Positions | None:
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
        self.seen = {visibility: positions and positions.columns(older) for visibility, positions in self.seen.items()}

    @property
    def remembers(self) -> bool:
        return any(layer.remembers for layer in self.layers)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        for layer in self.layers:
            layer.reorder(rows)
        self.newest = self.newest and self.newest.rows(rows)
        self.seen = {visibility: positions and positions.rows(rows) for visibility, positions in self.seen.items()}

    def join(self, other: "TowerState", rows: int, rows_of_other: int) -> None:
        """Take in the rows of ``other`` behind these, with what they remember, as if all had been one batch: their
        newest tokens stand side by side, and in front who remembers fewer is padded."""
        for state in (self, other):
            state.forget_unseen()
        assert self.newest is not None and other.newest is not None
        for visibility, mine in self.seen.items():
            theirs = other.seen[visibility]
            assert mine is not None and theirs is not None
            longest = max(mine.pos.shape[1], theirs.pos.shape[1])
            a, b = (positions.padded(front=longest - positions.pos.shape[1]) for positions in (mine, theirs))
            self.seen[visibility] = a.stack_rows(b, rows, rows_of_other)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.join(theirs)
        self.newest = self.newest.stack_rows(other.newest, rows, rows_of_other)
        self.length = max(self.length, other.length)

    def forget_unseen(self) -> None:
        """Columns that are padding in every row: what rows remembered that have left."""
        assert self.newest is not None, "nothing has been seen"
        self.length = int(self.newest.pos.max()) + 1
        retained: dict[Visibility, Tensor] = {}
        for visibility, positions in self.seen.items():
            if positions is not None and positions.keep is not None and not (real := positions.keep.any(dim=0)).all():
                retained[visibility] = real.nonzero().squeeze(1)
                self.seen[visibility] = positions.columns(retained[visibility])
        for layer, visibility in zip(self.layers, self.visibilities, strict=True):
            if visibility in retained:
                layer.forget(retained[visibility])

    @property
    def nbytes(self) -> int:
        positions = sum(positions.nbytes for positions in (*self.seen.values(), self.newest) if positions)
        return positions + sum(layer.nbytes for layer in self.layers)
