"""Memory of the caches: how much a row may need, and how much all rows may have.

A page here is the keys and values of one token in all layers. The kernels in C keep the rows of a model in one pool of
such pages. Other states keep rows side by side, as wide as the longest, in buffers that double.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from dragoman.model.caches.cache import Cache, PooledCache
from dragoman.model.inference.slots import SlotPool, Slots
from dragoman.model.interface import SequenceModel
from dragoman.serve.engine.requests import Row
from dragoman.text.tokens.tokenizer import EOS

_PROBE = 64
"""Tokens of the text on which a state is measured."""


@dataclass(frozen=True)
class CacheCost:
    """Bytes of a model's decoding state."""

    per_token: float
    """Bytes of each token written, and of each token of a prompt."""
    per_source_token: float
    """Bytes of each token of a source."""
    pooled: bool
    """True where rows take pages of one pool; else they are padded to the longest."""

    @classmethod
    def measure(cls, model: SequenceModel, cache: Cache) -> "CacheCost":
        """Measure the state of a model on short texts."""
        translates = model_translates(model)
        short, long = (_state(model, cache, source, 1) for source in (4, 4 + _PROBE)) if translates else (None, None)
        of_source = (long.nbytes - short.nbytes) / _PROBE if short and long else 0.0
        begun, grown = (_state(model, cache, 4 if translates else None, tokens) for tokens in (1, 1 + _PROBE))
        if isinstance(begun, Slots):
            return cls(begun.pool.token_bytes, 2 * max(0.0, of_source), True)
        return cls(2 * max(0.0, grown.nbytes - begun.nbytes) / _PROBE, max(0.0, of_source), False)


class Tally:
    """The most bytes that the rows of one group may need."""

    def __init__(self, cost: CacheCost, rows: Iterable[Row] = ()):
        self.cost, self.count, self.interactive = cost, 0, 0
        self._tokens = self._longest = self._read = self._longest_read = 0
        """Tokens that all rows may write, that one may; tokens of all sources, of one."""
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        tokens, read = self._sizes(row)
        self.count += 1
        self.interactive += row.waiter.ticket.call.priority == "interactive"
        self._tokens, self._read = self._tokens + tokens, self._read + read
        self._longest, self._longest_read = max(self._longest, tokens), max(self._longest_read, read)

    @property
    def nbytes(self) -> float:
        return self._bytes(self.count, (self._tokens, self._longest), (self._read, self._longest_read))

    def nbytes_with(self, row: Row) -> float:
        """Return the bytes with one more row."""
        tokens, read = self._sizes(row)
        return self._bytes(
            self.count + 1,
            (self._tokens + tokens, max(self._longest, tokens)),
            (self._read + read, max(self._longest_read, read)),
        )

    def _sizes(self, row: Row) -> tuple[int, int]:
        """Return the most tokens that a row may write, and the number that it reads."""
        return row.written + (0 if self.cost.per_source_token else row.task.beams * row.length), row.length

    def _bytes(self, count: int, tokens: tuple[int, int], read: tuple[int, int]) -> float:
        """Return the bytes of rows, given for the tokens they write and read those of all and of the longest."""
        if self.cost.pooled:
            return self.cost.per_token * tokens[0] + self.cost.per_source_token * read[0]
        return count * (self.cost.per_token * tokens[1] + self.cost.per_source_token * read[1])


def model_translates(model: SequenceModel) -> bool:
    """Return whether the model reads a source."""
    return bool(getattr(model.cfg, "translates", False))


@torch.inference_mode()
def _state(model: SequenceModel, cache: Cache, source: int | None, tokens: int):
    """Return a state that has read a source and some tokens."""
    ids = None if source is None else torch.full((1, source), EOS, device=model.device)
    most = tokens if model.max_length is None else min(tokens, model.max_length)
    with model.without_dropout():
        state = model.start(ids, cache)
        model.decode(torch.full((1, most), EOS, device=model.device), state)
    return state


def pool_bytes(policies: Iterable[PooledCache]) -> int:
    """Return the bytes of all pools."""
    return sum(pool.nbytes for policy in policies for pool in policy.pools.values() if isinstance(pool, SlotPool))
