"""Prefixes: what a model has computed for the beginnings of prompts, kept for prompts that begin alike.

System prompts and examples before a question are the same in many requests. The state of a prompt that has been read is
kept; a new prompt continues a copy of it from where the two part. The copy shares the pages of the original.
"""

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Sequence

from dragoman.model.interface import DecodingState

SHORTEST = 16
"""Fewest tokens in common that are worth a copy."""


class PrefixCache:
    """States of the prompts read last."""

    def __init__(self, tokens: int):
        """
        Args:
            tokens: most tokens of all kept prompts.
        """
        self.most, self.tokens, self.hits = tokens, 0, 0
        self._states: OrderedDict[tuple[int, ...], DecodingState] = OrderedDict()
        self._sorted: list[tuple[int, ...]] = []
        """The same prompts in their order as tuples: those that begin alike stand together."""

    def find(self, ids: Sequence[int]) -> DecodingState | None:
        """Return a state that has read as much of ``ids`` as is known, but not its last token; None for too little."""
        ids = tuple(ids)
        place = bisect_left(self._sorted, ids)
        neighbours = self._sorted[max(0, place - 1) : place + 1]  # no other has more in common with it
        best = max(neighbours, key=lambda known: _common(known, ids), default=())
        length = min(_common(best, ids), len(ids) - 1)
        if length < SHORTEST:
            return None
        self._states.move_to_end(best)
        self.hits += 1
        return self._states[best].fork(length)

    def keep(self, ids: Sequence[int], state: DecodingState) -> None:
        """Keep a copy of the state of a prompt that has been read."""
        known = tuple(ids)
        if len(known) < SHORTEST or len(known) > self.most or known in self._states:
            return
        copy = state.fork(len(known))
        if copy is None:
            return
        for shorter in self._beginnings(known):
            self._remove(shorter)
        self._states[known], self.tokens = copy, self.tokens + len(known)
        insort(self._sorted, known)
        while self.tokens > self.most:
            self._remove(next(iter(self._states)))

    def clear(self) -> None:
        """Give back all pages."""
        self._states.clear()
        self._sorted.clear()
        self.tokens = 0

    def close(self) -> None:
        """Give back all pages, and keep nothing from now on."""
        self.most = 0
        self.clear()

    def _beginnings(self, ids: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the kept prompts that ``ids`` begins with, without itself."""
        found, length = [], len(ids) - 1
        while length >= SHORTEST and (place := bisect_right(self._sorted, ids[:length])):
            other = self._sorted[place - 1]  # what begins ids, in ``length`` tokens or fewer, stands here or before
            length = _common(other, ids[:length])
            if length == len(other):
                found.append(other)
                length -= 1
        return found

    def _remove(self, known: tuple[int, ...]) -> None:
        del self._states[known]
        del self._sorted[bisect_left(self._sorted, known)]
        self.tokens -= len(known)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
