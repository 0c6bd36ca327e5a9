"""Noise on sources: as strong as asked for, a function of seed, step and row alone, and gone where it should not be."""

import os

import numpy as np
import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st

from dragoman.config import to_dict
from dragoman.data.corruption import MASK, RandomDraw
from dragoman.data.noise import NoNoise, WordNoise
from dragoman.data.pretraining import CorruptedRows
from dragoman.errors import ConfigError
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.lines import Sourced
from dragoman.text.tokens.tokenizer import EOS, PAD, Tokenizer, tag_mark
from dragoman.text.tokens.training import Bytes
from dragoman.train import recipe
from dragoman.train.distributed.micro_batch import split_between_processes
from dragoman.train.run import resume, start
from dragoman.train.tasks.drawing import check_marks

MASKED = Tokenizer.train(Bytes(), [], [tag_mark("bt"), MASK[0]])


@given(n=st.integers(1, 40), distance=st.integers(0, 5), seed=st.integers(0, 999))
def test_nothing_moves_further_than_it_may(n, distance, seed):
    moved = WordNoise(drop=0.0, blank=0.0, distance=distance).apply(np.arange(n), RandomDraw([seed]), -1)
    assert sorted(moved) == list(range(n)) and np.abs(moved - np.arange(n)).max() <= distance


def test_as_many_are_lost_and_hidden_as_asked_for():
    noisy = WordNoise(drop=0.2, blank=0.1, distance=0).apply(np.arange(20_000), RandomDraw([1]), -1)
    assert len(noisy) / 20_000 == pytest.approx(0.8, abs=0.01)
    assert (noisy == -1).mean() == pytest.approx(0.1, abs=0.01)
    assert (np.diff(noisy[noisy >= 0]) > 0).all(), "in their order"
    assert len(WordNoise(drop=0.99).apply(np.arange(2), RandomDraw([1]), -1)) >= 1


def test_a_batch_is_a_function_of_seed_step_and_row_and_spares_tags_and_targets(tmp_path):
    pairs = [Sourced("one two three four", "b", "x", "bt"), Sourced("five six seven", "c c", "x", "bt")]
    corpus = ParallelCorpus.build(tmp_path / "c", pairs, MASKED, MASKED)
    rows = np.array([0, 1])

    def batch(noise, rows=rows, step=0, seed=1):
        return noise.batch(corpus, CorruptedRows(rows, step), seed, MASKED)

    plain, noisy = batch(NoNoise()), batch(WordNoise())
    assert (noisy.target_out == plain.target_out).all() and (noisy.target_in == plain.target_in).all()
    assert (noisy.source[:, 0] == MASKED.tag("bt")).all()
    assert noisy.source.tolist() != plain.source.tolist()
    assert all(row[row != PAD][-1] == EOS and (row == EOS).sum() == 1 for row in noisy.source)
    assert batch(WordNoise()).source.tolist() == noisy.source.tolist()
    alone = batch(WordNoise(), rows[1:]).source[0].tolist()
    assert alone == noisy.source[1].tolist()[: len(alone)]
    assert (
        batch(WordNoise(), step=1).source.tolist()
        != noisy.source.tolist()
        != batch(WordNoise(), seed=2).source.tolist()
    )


def test_rows_can_be_shared_out_among_processes():
    parts = split_between_processes([CorruptedRows(np.arange(5), 7)], 2)
    shared = [[part.batch.rows.tolist() for part in mine] for mine in parts]
    assert [row for mine in shared for rows in mine for row in rows] == [0, 1, 2, 3, 4] and all(shared)
    assert all(part.batch.step == 7 for mine in parts for part in mine)


def test_a_run_resumed_equals_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    plain = to_dict(tiny_run.config(tiny_run.write_pairs(tmp_path / "p.tsv", 60), samples=0))
    plain["data"] |= {"noise": {"kind": "word_noise"}}
    plain["train"] |= {"budget": {"kind": "steps", "steps": 4}, "save_every": 2, "validate_every": 4}
    cfg = recipe.load(plain)
    list(start(cfg, tmp_path / "whole").events())
    events = start(cfg, tmp_path / "cut").events()
    for _ in events:
        if (tmp_path / "cut" / "checkpoints" / "step-000002").exists():
            break
    events.close()
    list(resume(tmp_path / "cut").events())
    assert tiny_run.outcome(tmp_path / "cut") == tiny_run.outcome(tmp_path / "whole")
    plain["data"] |= {"noise": "no_noise"}
    list(start(recipe.load(plain), tmp_path / "quiet").events())
    assert tiny_run.outcome(tmp_path / "quiet")["tensors"] != tiny_run.outcome(tmp_path / "whole")["tensors"]


def test_a_tokenizer_without_the_mark_is_refused():
    data = recipe.PairsConfig(train=(), noise=WordNoise())
    with pytest.raises(ConfigError, match=r"data\.noise\.tokenizer: has no ⟨mask⟩"):
        check_marks(data, Tokenizer.train(Bytes(), []))
