"""Batches from several sources, each with its share and its available pairs: a function of the step.

A run is divided into rounds of equally many steps. A round draws as many pairs as fill its batches, from each pool (a
source, or the whole text) its share of them; groups those of similar length, as ``batch.py`` does; and shuffles the
batches. A round's draw depends on its number alone: a pool's pairs are used in one random permutation after another,
each pair once per pass, and the position in the passes follows from the rounds before without drawing them. Where only
part of a pool is available, pairs are drawn from that part.

N pairs, n of them in a pool, B in a batch.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from dragoman.data.batch import by_length, halve_largest, padding_share, sizes_within

ROUND = 100
"""Maximum number of steps in a round: more steps mean less padding; fewer make a changed share take effect sooner."""
SPARE = 0.99
"""Number of drawn pairs relative to the number that fills a round's batches on average: pairs that do not fit are
dropped."""


class SourcePool:
    """Pairs that are drawn from together, the easiest first."""

    def __init__(self, rows: Int[np.ndarray, "n"], larger: Int[np.ndarray, "n"], seed: Sequence[int]):
        self.rows, self.seed = rows, list(seed)
        self.ends = np.cumsum(larger)
        self._pass = lru_cache(maxsize=2)(self._shuffled)  # a round may span two

    def __len__(self) -> int:
        return len(self.rows)

    def cost(self, count: int) -> float:
        """Return the mean number of tokens of the larger side over the easiest ``count``."""
        return float(self.ends[count - 1]) / count

    def take(self, begin: int, end: int) -> Int[np.ndarray, "drawn"]:
        """Return the rows from ``begin`` to ``end`` in the sequence of random permutations of all."""
        n, parts = len(self), []
        while begin < end:
            number, at = divmod(begin, n)
            parts.append(self._pass(number)[at : at + end - begin])
            begin += len(parts[-1])
        return self.rows[np.concatenate(parts)] if parts else self.rows[:0]

    def easiest(self, count: int, wanted: int, raw: Callable[[int], np.ndarray]) -> Int[np.ndarray, "drawn"]:
        """Return ``wanted`` rows of the easiest ``count``, each equally often except for a random remainder."""
        some = np.argsort(raw(count), kind="stable")[: wanted % count]
        return self.rows[np.concatenate([np.tile(np.arange(count), wanted // count), some])]

    def _shuffled(self, number: int) -> Int[np.ndarray, "n"]:
        return np.argsort(np.random.PCG64([*self.seed, number]).random_raw(len(self)), kind="stable")


class Rounds:
    """Batches of every step. Each has at most ``tokens`` tokens on its larger side, padding included, unless a single
    pair has more; a step has exactly ``accumulate`` of them. Steps count from 0."""

    def __init__(
        self,
        lengths: Int[np.ndarray, "N 2"],
        pools: Sequence[np.ndarray],
        *,
        shares: Callable[[int], Sequence[float]],
        available: Callable[[int], float],
        steps_per_epoch: int,
        tokens: int,
        seed: int,
        accumulate: int = 1,
    ):
        """
        Args:
            pools: the rows of each, none of them empty, the easiest first.
            shares: of a step, the part of the pairs that each pool gives.
            available: of a step, the part of each pool that may be drawn.
            steps_per_epoch: that one pass over all pools would take.
        """
        self.steps_per_epoch, self.steps = steps_per_epoch, min(ROUND, steps_per_epoch)
        self.lengths, self.tokens, self.seed, self.accumulate = lengths, tokens, seed, accumulate
        larger = lengths.max(axis=1)
        self.pools = [SourcePool(rows, larger[rows], [seed, 1, i]) for i, rows in enumerate(pools)]
        self.shares, self.available = shares, available
        self._ends = [np.zeros(len(pools))]
        self._round: tuple[int, list[np.ndarray]] | None = None

    def at(self, step: int) -> list[Int[np.ndarray, "B"]]:
        """Return the rows of each of the step's batches."""
        number, index = divmod(step, self.steps)
        if self._round is None or self._round[0] != number:
            self._round = number, self._plan(number)
        return self._round[1][index * self.accumulate : (index + 1) * self.accumulate]

    @property
    def padding_share(self) -> float:
        """Fraction of all positions, source and target, that is padding. Measured on the first round."""
        return padding_share(self.lengths, self._plan(0))

    def drawn(self, number: int) -> Int[np.ndarray, "drawn"]:
        """Return the rows drawn for a round, pool after pool."""
        raw = np.random.PCG64([self.seed, 2, number]).random_raw
        begins, ends = self._drawn_before(number).astype(np.int64), self._drawn_before(number + 1).astype(np.int64)
        parts = []
        for pool, begin, end in zip(self.pools, begins.tolist(), ends.tolist(), strict=True):
            count = self._num_available(pool, number)
            whole = count == len(pool)
            parts.append(pool.take(begin, end) if whole else pool.easiest(count, end - begin, raw))
        return np.concatenate(parts)

    def _num_available(self, pool: SourcePool, number: int) -> int:
        return max(1, min(len(pool), round(self.available(number * self.steps) * len(pool))))

    def _drawn_before(self, number: int) -> Float[np.ndarray, "pools"]:
        """Return the number of pairs each pool has given before this round, not rounded."""
        while len(self._ends) <= number:
            self._ends.append(self._ends[-1] + self._portions(len(self._ends) - 1))
        return self._ends[number]

    def _portions(self, number: int) -> Float[np.ndarray, "pools"]:
        shares = np.array(self.shares(number * self.steps))
        cost = float(shares @ [pool.cost(self._num_available(pool, number)) for pool in self.pools])
        batches = self.steps * self.accumulate
        room = max(self.tokens - cost / 2, cost)  # on average half a pair's room stays empty at a batch's end
        return shares * max(SPARE * batches * room / cost, batches + len(self.pools))

    def _plan(self, number: int) -> list[np.ndarray]:
        """Return the rows of every batch of a round, in batch order."""
        rows, raw = self.drawn(number), np.random.PCG64([self.seed, 3, number]).random_raw
        rows = rows[by_length(self.lengths[rows], raw(len(rows)))]
        sizes = list(sizes_within(self.tokens, self.lengths[rows].max(axis=1)))
        while len(sizes) < self.steps * self.accumulate:
            halve_largest(sizes)
        cuts = np.cumsum([0, *sizes])
        order = np.argsort(raw(len(sizes)), kind="stable")[: self.steps * self.accumulate]
        return [rows[cuts[i] : cuts[i + 1]] for i in order]
