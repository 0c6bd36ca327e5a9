"""Mixing several sources into one: how many pairs of each, which ones, and in what order, all from the seed.

A source with weight w and n pairs gets a fraction in proportion to w n^(1/T) (Arivazhagan et al. 2019, section 4.2, for
w = 1). T = 1 takes all of each, a higher temperature favours the small sources, infinity treats all alike.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from dragoman.config import at, config
from dragoman.errors import ConfigError, DataError
from dragoman.text.lines import Pair


@config
class Mixing:
    """Mixing of several sources: weights, temperature, size and seed."""

    weights: tuple[float, ...] = ()
    """Weights, one per source; 1 for each if none is given."""
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Sampling temperature, at least 1; higher favours small sources."""
    pairs: Annotated[int, Field(ge=1)] | None = None
    """Number of pairs in the mixture; None for as many as the sources with a weight have together."""
    seed: int = 1


def pairs_per_source(sizes: Sequence[int], cfg: Mixing) -> list[int]:
    """Return the number of pairs to take of each source: its fraction of the total, rounded so that they add up to it.

    Raises:
        ConfigError: weights that are negative, not finite, all zero, or not one for each source.
    """
    weights = cfg.weights or (1.0,) * len(sizes)
    if len(weights) != len(sizes):
        raise ConfigError(f"mixing.weights: {len(weights)} weights for {len(sizes)} sources: give one for each")
    with at("mixing"):
        check_weights(weights)
    total = cfg.pairs or sum(size for weight, size in zip(weights, sizes, strict=True) if weight)
    exact = [total * fraction for fraction in source_fractions(sizes, weights, cfg.temperature)]
    taken = [math.floor(pairs) for pairs in exact]
    by_rest = sorted(range(len(sizes)), key=lambda i: (taken[i] - exact[i], i))
    for i in by_rest[: total - sum(taken)]:
        taken[i] += 1
    return taken


def check_weights(weights: Iterable[float]) -> None:
    """Refuse unusable weights.

    Raises:
        ConfigError: one that is negative or not finite, or none that is more than zero.
    """
    weights = list(weights)
    for weight in weights:
        if not math.isfinite(weight) or weight < 0:
            raise ConfigError(f"weights: {weight} is not a weight: give 0 or more")
    if not any(weights):
        raise ConfigError("weights: all are zero, so there is nothing to take: give one source more than 0")


def source_fractions(sizes: Sequence[int], weights: Sequence[float], temperature: float) -> list[float]:
    """Return the fraction of the mixture that each source gives; they sum to 1."""
    largest = max(weights)  # relative weights: products of extreme ones would underflow or overflow
    terms = [weight / largest * size ** (1 / temperature) for weight, size in zip(weights, sizes, strict=True)]
    return [term / math.fsum(terms) for term in terms]


def mix(
    sources: Sequence[Callable[[], Iterator[Pair]]], sizes: Sequence[int], cfg: Mixing
) -> Iterator[tuple[int, Pair]]:
    """Yield the index of the source and the pair, in memory that does not grow with their number.

    Each source keeps its order. Of a source that gives more than it has, every pair comes equally often; the remainder
    is drawn without repetition. Which source comes next is drawn in proportion to what each has still to give.

    Raises:
        ConfigError: as ``pairs_per_source``.
        DataError: a source with fewer pairs than its size says.
    """
    left = pairs_per_source(sizes, cfg)
    streams = [
        _repeated(source, size, portion, random.Random(f"{cfg.seed} {i}"))
        for i, (source, size, portion) in enumerate(zip(sources, sizes, left, strict=True))
    ]
    rng = random.Random(cfg.seed)
    for remaining in range(sum(left), 0, -1):
        at = rng.randrange(remaining)
        chosen = 0
        while at >= left[chosen]:
            at -= left[chosen]
            chosen += 1
        left[chosen] -= 1
        if (pair := next(streams[chosen], None)) is None:
            raise DataError(
                f"source {chosen + 1} had {sizes[chosen]:,} pairs and now has fewer: it changed while it was read"
            )
        yield chosen, pair


def _repeated(source: Callable[[], Iterator[Pair]], size: int, portion: int, rng: random.Random) -> Iterator[Pair]:
    for _ in range(portion // size):
        yield from source()
    wanted = portion % size
    for i, pair in enumerate(source() if wanted else ()):
        if rng.randrange(size - i) < wanted:  # selection sampling, Knuth, volume 2, algorithm 3.4.2 S
            wanted -= 1
            yield pair
        if not wanted:
            return
