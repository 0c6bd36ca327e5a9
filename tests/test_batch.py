"""Batches: a function of lengths, seed and step; nothing lost, nothing over budget, little padding."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dragoman.data.batch import Batches, collate
from dragoman.errors import ConfigError, DataError
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD, Tokenizer
from dragoman.text.tokens.training import Bytes

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=60).map(np.array)
SETTINGS = {
    "lengths": LENGTHS,
    "tokens": st.integers(1, 200),
    "seed": st.integers(0, 9),
    "accumulate": st.integers(1, 5),
}


def sentences(count: int, seed: int = 0) -> np.ndarray:
    """Lengths like those of real pairs: the sides are related."""
    draw = np.random.default_rng(seed)
    source = draw.gamma(6.0, 2.5, count).astype(int) + 2
    return np.stack([source, np.maximum(2, source + draw.normal(0, 2, count).astype(int))], axis=1)


@given(**SETTINGS, epoch=st.integers(0, 3))
def test_every_pair_comes_exactly_once_an_epoch(lengths, tokens, seed, accumulate, epoch):
    batches = Batches(lengths, tokens, seed, accumulate)
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    rows = np.concatenate([rows for step in steps for rows in batches.at(step)])
    assert sorted(rows) == list(range(len(lengths)))


@given(**SETTINGS, step=st.integers(0, 50))
def test_no_batch_is_over_budget_but_a_pair_alone(lengths, tokens, seed, accumulate, step):
    for rows in Batches(lengths, tokens, seed, accumulate).at(step):
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= tokens


@given(**SETTINGS, step=st.integers(0, 50))
def test_every_step_has_its_batches_and_none_is_empty(lengths, tokens, seed, accumulate, step):
    batches = Batches(lengths, tokens, seed, accumulate)
    counts = [len(batches.at(step)) for step in range(batches.steps_per_epoch)]
    assert all(count == accumulate for count in counts[:-1]) and 1 <= counts[-1] <= accumulate
    assert counts[-1] == accumulate or sum(counts) == len(lengths)  # fewer only where each is a pair alone
    assert all(len(rows) for rows in batches.at(step))


@given(**SETTINGS, steps=st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_a_step_has_the_same_batches_whatever_was_asked_before(lengths, tokens, seed, accumulate, steps):
    used = Batches(lengths, tokens, seed, accumulate)
    for step in steps:
        fresh = Batches(lengths.astype(np.int32), tokens, seed, accumulate).at(step)
        assert [rows.tolist() for rows in used.at(step)] == [rows.tolist() for rows in fresh]


def same_batches(a: Batches, b: Batches, offset: int = 0) -> float:
    """Share of a's first epoch whose batches are also in b's, which begins ``offset`` steps later."""
    batches = [
        {frozenset(rows.tolist()) for i in range(x.steps_per_epoch) for rows in x.at(i + at)}
        for x, at in ((a, 0), (b, offset))
    ]
    return len(batches[0] & batches[1]) / len(batches[0])


def test_another_seed_and_another_epoch_mix_the_pairs_anew():
    lengths = sentences(5000)
    batches, other = Batches(lengths, 1000, seed=1), Batches(lengths, 1000, seed=2)
    assert same_batches(batches, Batches(lengths, 1000, seed=1)) == 1
    assert same_batches(batches, other) < 0.3
    assert same_batches(batches, batches, offset=batches.steps_per_epoch) < 0.3


def test_long_and_short_batches_come_in_random_order():
    lengths = sentences(5000)
    batches = Batches(lengths, 1000, seed=1)
    longest = [lengths[batches.at(step)[0]].max() for step in range(batches.steps_per_epoch)]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3


def test_another_process_cuts_the_same_batches():
    code = """
import sys; sys.path.insert(0, sys.argv[1])
from test_batch import sentences
from dragoman.data.batch import Batches
print([rows.tolist() for rows in Batches(sentences(300), 200, seed=3, accumulate=2).at(17)])
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert theirs.strip() == str([rows.tolist() for rows in Batches(sentences(300), 200, seed=3, accumulate=2).at(17)])


def test_padding_of_captions_like_multi30k_is_under_5_percent():
    lengths = sentences(29_000)
    batches = Batches(lengths, 4096, seed=1)
    every = [rows for step in range(batches.steps_per_epoch) for rows in batches.at(step)]
    stored = sum(len(rows) * lengths[rows].max(axis=0).sum() for rows in every)
    assert batches.padding_share == pytest.approx(1 - lengths.sum() / stored)
    assert 0 < batches.padding_share < 0.05


def test_settings_that_make_no_batches_are_refused():
    with pytest.raises(ConfigError, match="must be 1 or more"):
        Batches(sentences(3), 0, seed=1)
    with pytest.raises(ConfigError, match="must be 1 or more"):
        Batches(sentences(3), 10, seed=1, accumulate=0)
    with pytest.raises(DataError, match="no pairs"):
        Batches(sentences(0), 10, seed=1)


def test_the_decoder_reads_what_it_has_answered_one_place_later(tmp_path):
    tokenizer = Tokenizer.train(Bytes(), [])
    pairs = [Pair("one", "eins"), Pair("two", "zwei und mehr"), Pair("three", "")]
    corpus = ParallelCorpus.build(tmp_path / "c", pairs, tokenizer, tokenizer)
    batch = collate(corpus, np.array([1, 0, 2])).to("cpu")
    for row, i in enumerate([1, 0, 2]):
        source, target = (tokenizer.encode(text) for text in pairs[i])
        for tensor, ids in (
            (batch.source, [*source, EOS]),
            (batch.target_in, [BOS, *target]),
            (batch.target_out, [*target, EOS]),
        ):
            assert tensor.dtype == torch.int64
            assert tensor[row].tolist() == ids + [PAD] * (tensor.shape[1] - len(ids))
