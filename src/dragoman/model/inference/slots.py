"""Cache of the C kernels: slots for tokens, and a table of each row's slots.

Each token gets the next free slot of a pool for its keys and values in every layer. A row is a list of slots. So rows
share a common prefix, and beam search, removed sentences and added sentences change a small table and move no keys.
This is paging (vLLM, arXiv:2309.06180) with pages of one token.

R rows, N sentences, T length, n tokens.
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Sequence
from weakref import WeakSet

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.model.interface import DecodingState
from dragoman.native.library import library

INITIAL_SLOTS = 32
"""Initial number of slots per row, doubled whenever they are used up."""


class StepKernel(ABC):
    """Interface of the model that a step runs: see ``native_tower.NativeTower``."""

    @property
    @abstractmethod
    def address(self) -> int:
        """Address of the ``Model`` of native/tower.c."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Size of the output for each token: of the vocabulary, or of a hidden vector."""

    @abstractmethod
    def ensure_positions(self, length: int) -> None:
        """Extend the tables of positions to texts of ``length`` tokens."""


class SlotPool:
    """Pool of keys and values: for each layer (slots, 2 G C), the keys of all heads first.

    Several states may share it. Joining two of them then moves no keys, and a common prefix is stored once.
    """

    def __init__(self, widths: Sequence[int], dtype: torch.dtype, *, slots: int = 0, capacity: int | None = None):
        """
        Args:
            widths: for each layer, the size of a token's keys and values.
            dtype: their data type.
            slots: number of slots to begin with.
            capacity: most slots that the pool may have; None for any number.
        """
        self.widths, self.dtype, self.slots, self.used, self.capacity = widths, dtype, slots, 0, capacity
        self.layers = [torch.empty(slots, width, dtype=dtype) for width in widths] if slots else []
        self.users: WeakSet[Slots] = WeakSet()
        """The states whose tables name slots of this pool."""

    @property
    def free(self) -> int:
        return self.slots - self.used

    @property
    def layers(self) -> list[Tensor]:
        return self._layers

    @layers.setter
    def layers(self, layers: list[Tensor]) -> None:
        self._layers = layers
        addresses = (layer.data_ptr() for layer in layers)
        self.addresses = (ctypes.c_void_p * len(self.widths))(*addresses)  # NULL for those that are not there yet

    def make_room(self, tokens: int, rows: int) -> None:
        """Make room for ``tokens`` of ``rows``: free the slots that no state uses, then grow if that is not enough.

        Raises:
            MemoryError: the pool would exceed its capacity.
        """
        if tokens <= self.free:
            return
        if self.used:
            self.compact()
        if tokens > self.free or self.used > self.slots // 2:
            wanted = max(2 * self.slots, self.used + tokens, INITIAL_SLOTS * rows)
            wanted = wanted if self.capacity is None else min(wanted, self.capacity)
            if wanted > self.slots:
                self.grow(wanted)
        if tokens > self.free:
            raise MemoryError(f"{self.used + tokens} tokens are to be cached, and there is room for {self.capacity}")

    def compact(self) -> None:
        """Free the slots that no row of any state uses."""
        users = list(self.users)
        known = [torch.arange(user.table.shape[1]) < user.lengths[:, None] for user in users]
        named = [user.table[real].long() for user, real in zip(users, known, strict=True)]
        live = torch.cat([*named, torch.empty(0, dtype=torch.long)]).unique()
        if len(live) == self.used:
            return
        for layer in self.layers:
            layer[: len(live)] = layer[live]
        self.used = len(live)
        for user, real, slots in zip(users, known, named, strict=True):
            user.table[real] = torch.searchsorted(live, slots).int()

    def grow(self, slots: int) -> None:
        """Grow to ``slots`` in total."""
        layers = self.layers
        for number, width in enumerate(self.widths):  # one after the other, so that only one is there twice
            grown = torch.empty(slots, width, dtype=self.dtype)
            if self.used:
                grown[: self.used] = layers[number][: self.used]
            layers[number : number + 1] = [grown]  # of which there is none before the first token
        self.layers, self.slots = layers, slots

    def keep(self, slots: Int[Tensor, " n"]) -> None:
        """Move ``slots`` to the front, in order, and free the rest."""
        for layer in self.layers:
            layer[: len(slots)] = layer[slots]
        self.used = len(slots)

    def append(self, other: "SlotPool") -> None:
        """Copy the used slots of ``other`` behind those used here; there must be room."""
        end = self.used + other.used
        if other.used:
            for mine, theirs in zip(self.layers, other.layers, strict=True):
                mine[self.used : end] = theirs[: other.used]
        self.used = end

    @property
    def token_bytes(self) -> int:
        """Bytes of a slot in all layers."""
        return sum(self.widths) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)


class StateStruct(ctypes.Structure):
    """Struct ``State`` of native/tower.c."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("table", "length")),
        *((name, ctypes.c_int64) for name in ("room", "used")),
        *((name, ctypes.c_void_p) for name in ("kv", "source", "first", "count")),
        ("beams", ctypes.c_int64),
    ]


_NOTHING, _NO_TABLE = torch.empty(0, dtype=torch.int32), torch.empty(0, 0, dtype=torch.int32)


def first_of(count: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Return the index of the first token of each of N texts that follow one another, given their numbers of tokens."""
    return count.cumsum(0).int() - count


class Slots(DecodingState):
    """Decoding state of the C kernels."""

    def __init__(
        self,
        pool: SlotPool,
        source: SlotPool | None = None,
        first: Int[Tensor, " N"] = _NOTHING,
        count: Int[Tensor, " N"] = _NOTHING,
    ):
        """
        Args:
            pool: keys and values of the tokens read, and perhaps those of other states.
            source: keys and values of all sources, concatenated.
            first, count: of each source, the index of its first token there and the number of its tokens.
        """
        self.pool, self.source, self.columns = pool, source, 0
        self.first, self.count = first, count
        self.table: Int[Tensor, "R room"] = _NO_TABLE
        self.lengths: Int[Tensor, " R"] = _NOTHING
        self.rewindable = 0
        self.history: list[Int[Tensor, " R"]] = []
        """Lengths before each of the newest ``rewindable`` columns."""
        self.pool.users.add(self)

    # ---- reading ----

    def read(
        self, model: StepKernel, ids: Int[Tensor, "R T"], keep: Bool[Tensor, "R T"] | None = None
    ) -> Float[Tensor, "n numbers"]:
        """Run the model over these tokens, except those that ``keep`` masks, and cache them; return its outputs."""
        R, T = ids.shape
        if not self.columns:
            self.begin(R)
        self.reserve(R * T, self.columns + T)
        self.record_lengths(T, keep)
        model.ensure_positions(self.columns + T)
        rows = torch.arange(R, dtype=torch.int32)
        if T > 1:
            rows = rows.repeat_interleave(T)
        ids = ids.reshape(-1)
        if keep is not None:
            rows, ids = rows[keep.flatten()], ids[keep.flatten()]
        ids, answers = ids.contiguous(), torch.empty(len(ids), model.output_size)
        state = self.struct(self.table.data_ptr(), self.lengths.data_ptr(), self.table.shape[1])
        library().run(
            model.address, ctypes.addressof(state), ids.data_ptr(), rows.data_ptr(), len(ids), answers.data_ptr()
        )
        self.pool.used += len(ids)
        self.columns += T
        return answers

    def begin(self, R: int) -> None:
        """Let there be R rows that have read nothing."""
        self.table, self.lengths = torch.empty(R, 0, dtype=torch.int32), torch.zeros(R, dtype=torch.int32)

    def clear(self) -> None:
        """Let there be no rows: every sentence has ended."""
        self.table, self.lengths, self.first, self.count = _NO_TABLE, _NOTHING, _NOTHING, _NOTHING

    def struct(self, table: int, lengths: int, room: int) -> StateStruct:
        """Return this state as the kernels read it; ``table`` and ``lengths`` are addresses, ``room`` the columns."""
        source = self.source
        return StateStruct(
            table,
            lengths,
            room,
            self.pool.used,
            ctypes.addressof(self.pool.addresses),
            None if source is None else ctypes.addressof(source.addresses),
            self.first.data_ptr(),
            self.count.data_ptr(),
            self.beams,
        )

    def reserve(self, tokens: int, columns: int) -> None:
        room = self.table.shape[1]
        if columns > room:
            wider = self.table.new_empty(len(self.table), max(columns, 2 * room, INITIAL_SLOTS))
            wider[:, :room] = self.table
            self.table = wider
        self.pool.make_room(tokens, len(self.table))

    def record_lengths(self, T: int, keep: Tensor | None) -> None:
        """Record the rows' lengths before each of the columns that may be removed."""
        for column in range(max(0, T - self.rewindable), T):
            self.history.append(self.lengths + (column if keep is None else keep[:, :column].sum(dim=1).int()))
        del self.history[: max(0, len(self.history) - self.rewindable)]

    # ---- as any state ----

    @property
    def length(self) -> int:
        return self.columns

    @property
    def nbytes(self) -> int:
        tables = (self.table, self.lengths, self.first, self.count, *self.history)
        pools = self.pool.nbytes + (self.source.nbytes if self.source else 0)
        return pools + sum(table.nbytes for table in tables)

    def expand(self, beams: int) -> None:
        assert self.beams == 1, "already expanded"
        self.beams = beams
        self.reorder(torch.arange(len(self.table)).repeat_interleave(beams))

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        self.table, self.lengths = self.table.index_select(0, rows), self.lengths.index_select(0, rows)
        self.history = [lengths.index_select(0, rows) for lengths in self.history]

    def select(self, sentences: Int[Tensor, " N"]) -> None:
        self.reorder((sentences[:, None] * self.beams + torch.arange(self.beams)).flatten())
        if self.source is not None:
            self.first, self.count = self.first[sentences], self.count[sentences]

    def join(self, other: DecodingState) -> None:
        assert isinstance(other, Slots) and self.beams == other.beams
        shared = other.pool is self.pool
        self.reserve(0 if shared else other.pool.used, max(self.table.shape[1], other.table.shape[1]))
        theirs = torch.zeros(len(other.table), self.table.shape[1], dtype=torch.int32)
        theirs[:, : other.table.shape[1]] = other.table + (0 if shared else self.pool.used)
        if not shared:
            self.pool.append(other.pool)
        self.pool.users.discard(other)
        self.table, self.lengths = torch.cat([self.table, theirs]), torch.cat([self.lengths, other.lengths])
        self.columns = int(self.lengths.max())  # rows leave too: a batch may be joined for as long as a server runs
        if self.source is not None and other.source is not None:
            self.reserve_source(other.source.used)
            self.first = torch.cat([self.first, other.first + self.source.used])
            self.count = torch.cat([self.count, other.count])
            self.source.append(other.source)

    def reserve_source(self, tokens: int) -> None:
        """Free the slots of removed sentences, then grow the source pool if it is still too small."""
        assert self.source is not None
        if tokens <= self.source.free:
            return
        spans = zip(self.first.tolist(), self.count.tolist(), strict=True)
        self.source.keep(torch.cat([torch.arange(first, first + count) for first, count in spans]))
        self.first = first_of(self.count)
        if tokens > self.source.free:
            self.source.grow(2 * (self.source.used + tokens))

    def fork(self, tokens: int) -> "Slots | None":
        if self.source is not None or len(self.table) != 1 or int(self.lengths[0]) != self.columns:
            return None
        forked = Slots(self.pool)
        forked.table, forked.columns = self.table[:, :tokens].clone(), tokens
        forked.lengths = torch.full_like(self.lengths, tokens)
        return forked

    def allow_rewind(self, tokens: int) -> None:
        self.rewindable = tokens

    def rewind(self, tokens: int) -> None:
        if tokens:
            self.lengths, self.columns = self.history[-tokens], self.columns - tokens
            del self.history[-tokens:]
