"""Mixing: exact portions, each source's pairs equally often, the same mixture from the same seed."""

import math
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import ConfigError, DataError
from dragoman.text.lines import Pair
from dragoman.text.mix import Mixing, mix, pairs_per_source

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=5)


def sources_of(sizes):
    def source(i, size):
        return lambda: (Pair(f"{i}", f"{j}") for j in range(size))

    return [source(i, size) for i, size in enumerate(sizes)]


@given(sizes=SIZES, data=st.data(), pairs=st.integers(1, 200), seed=st.integers(0, 3))
def test_each_source_gives_its_portion_with_every_pair_equally_often(sizes, data, pairs, seed):
    weights = data.draw(st.lists(st.floats(0, 1e300), min_size=len(sizes), max_size=len(sizes)).filter(any))
    cfg = Mixing(weights=tuple(weights), temperature=data.draw(st.floats(1, 100)), pairs=pairs, seed=seed)
    mixed = list(mix(sources_of(sizes), sizes, cfg))
    taken = pairs_per_source(sizes, cfg)
    assert len(mixed) == pairs == sum(taken)
    for i, (size, portion) in enumerate(zip(sizes, taken, strict=True)):
        mine = [int(pair.target) for source, pair in mixed if source == i]
        assert len(mine) == portion and all(pair.source == str(source) for source, pair in mixed)
        times = [Counter(mine)[j] for j in range(size)]
        assert max(times) - min(times) <= 1
        rounds = [mine[at : at + size] for at in range(0, portion, size)]
        assert all(part == sorted(part) for part in rounds)  # a source keeps its order
    assert mixed == list(mix(sources_of(sizes), sizes, cfg))


@given(sizes=SIZES, temperature=st.floats(1, 20))
def test_portions_follow_weight_times_size_to_the_inverse_temperature(sizes, temperature):
    weights = [1.0 + i for i in range(len(sizes))]
    shares = [w * n ** (1 / temperature) for w, n in zip(weights, sizes, strict=True)]
    taken = pairs_per_source(sizes, Mixing(weights=tuple(weights), temperature=temperature, pairs=10_000))
    for got, share in zip(taken, shares, strict=True):
        assert abs(got - 10_000 * share / sum(shares)) <= 1


def test_without_weights_and_temperature_a_mixture_is_everything_once():
    mixed = [pair for _, pair in mix(sources_of([7, 20]), [7, 20], Mixing())]
    assert sorted(mixed) == sorted(pair for source in sources_of([7, 20]) for pair in source())
    assert mixed != [pair for _, pair in mix(sources_of([7, 20]), [7, 20], Mixing(seed=2))]


def test_sources_are_interleaved_and_not_read_ahead():
    beginning = [source for source, _ in islice(mix(sources_of([1000, 1000]), [1000, 1000], Mixing()), 100)]
    assert 25 < sum(beginning) < 75


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.0, 0.0), "all are zero"),
        ((1.0, -1.0), "-1.0 is not a weight"),
        ((1.0, math.nan), "nan is not a weight"),
        ((1.0,), "1 weights for 2 sources"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        pairs_per_source([3, 4], Mixing(weights=weights))


def test_a_source_that_shrinks_while_it_is_mixed_is_told():
    with pytest.raises(DataError, match="source 2 had 30 pairs and now has fewer"):
        list(mix(sources_of([7, 20]), [7, 30], Mixing()))
