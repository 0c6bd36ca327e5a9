"""Sampled segmentations spell the same text, follow their distributions, and depend on seed, step and row alone."""

import itertools
import os
from collections import Counter

import numpy as np
import pytest
import tiny_run

from dragoman.config import to_dict
from dragoman.data.batch import collate
from dragoman.data.corruption import MASK, RandomDraw
from dragoman.data.noise import WordNoise
from dragoman.data.pretraining import CorruptedRows
from dragoman.data.segmentation import BpeDropout, SampledPairs, UnigramSampling, _uniform
from dragoman.errors import ConfigError
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.lines import Sourced
from dragoman.text.tokens.sampling import BpeDropoutWords, UnigramWords, bpe_dropout, unigram_sampling
from dragoman.text.tokens.tokenizer import EOS, Tokenizer, tag_mark
from dragoman.text.tokens.training import Bpe, Bytes, Unigram, Words
from dragoman.train import recipe
from dragoman.train.run import resume, start

TEXTS = [
    "the lower the newest",
    "the widest lowest house",
    "houses, newer ones: über 30 Häuser",
    "low low new new wide wide",
] * 8
ODD = [
    "",
    "   two  spaces ",
    "emoji 👍🏽 and \u2028 separators",
    "⟨mask⟩ typed by hand",
    "日本語のテキスト",
    "a\tb\x00c",
]
BPE, UNIGRAM = (Tokenizer.train(cfg, TEXTS, [tag_mark("bt"), MASK[0]]) for cfg in (Bpe(vocab=300), Unigram(vocab=300)))
SAMPLERS = {"bpe": bpe_dropout(BPE, 0.3), "unigram": unigram_sampling(UNIGRAM, 0.1)}


def stream(*seed: int):
    return _uniform(RandomDraw(seed))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sample_spells_the_same_text_and_keeps_marks(kind):
    sampler = SAMPLERS[kind]
    tokenizer, changed = sampler.tokenizer, 0
    for number, text in enumerate([*TEXTS[:4], *ODD]):
        ids = [tokenizer.tag("bt"), *tokenizer.encode(text), EOS]
        sampled = sampler.resegment(ids, stream(number))
        assert tokenizer.decode(sampled) == text and (sampled[0], sampled[-1]) == (ids[0], EOS)
        changed += sampled != ids
    assert changed >= 4


def test_nothing_left_out_is_the_usual_segmentation_and_everything_left_out_is_bytes():
    for text in [*TEXTS[:4], *ODD]:
        ids = BPE.encode(text)
        assert bpe_dropout(BPE, 0.0).resegment(ids, stream(1)) == ids
        assert all(len(BPE.spelling(i)) == 1 for i in bpe_dropout(BPE, 1.0).resegment(ids, stream(1)))
        ids = UNIGRAM.encode(text)
        assert unigram_sampling(UNIGRAM, 1e4).resegment(ids, stream(1)) == ids


def test_bpe_dropout_has_the_probabilities_of_its_algorithm():
    # merges a+b, ab+c with 0.25 left out each time: abc is whole with 0.75 * 0.75, in two parts with 0.75 * 0.25
    words = BpeDropoutWords({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, [("a", "b"), ("ab", "c")], 0.25)
    uniform = stream(1)
    found = Counter(tuple(words.sample("abc", uniform) or ()) for _ in range(20_000))
    for tokens, probability in {(4,): 0.5625, (3, 2): 0.1875, (0, 1, 2): 0.25}.items():
        assert found[tokens] / 20_000 == pytest.approx(probability, abs=0.012)
    assert words.sample("abx", uniform) is None


def test_unigram_samples_have_the_probability_of_each_segmentation_to_the_alpha():
    pieces = [("a", -2.0), ("b", -2.5), ("c", -1.0), ("ab", -3.0), ("bc", -4.0), ("abc", -3.5)]
    scores, names, alpha = dict(pieces), [name for name, _ in pieces], 0.5
    splits = [parts for n in range(1, 4) for parts in itertools.product(names, repeat=n) if "".join(parts) == "abc"]
    weights = {parts: np.exp(alpha * sum(scores[part] for part in parts)) for parts in splits}
    words, uniform = UnigramWords(pieces, alpha), stream(2)
    found = Counter(tuple(names[i] for i in words.sample("abc", uniform) or ()) for _ in range(20_000))
    assert len(splits) == 4 and set(found) == set(splits)
    for parts, weight in weights.items():
        assert found[parts] / 20_000 == pytest.approx(weight / sum(weights.values()), abs=0.012)
    assert words.sample("abx", uniform) is None


def test_a_pair_is_a_function_of_seed_step_and_row_and_never_longer_than_the_model_takes(tmp_path):
    pairs = [Sourced("the lower house", "die newest houses", "x", "bt"), Sourced("widest newest", "low lowest", "x")]
    corpus = ParallelCorpus.build(tmp_path / "c", pairs, BPE, BPE)
    samplers = BpeDropout(rate=0.5).samplers(BPE, BPE)

    def rows(seed=1, step=0, longest=None):
        return [[side.tolist() for side in SampledPairs(corpus, samplers, seed, step, longest)[i]] for i in (0, 1)]

    stored = [[side.tolist() for side in corpus[i]] for i in (0, 1)]
    assert rows() == rows() and rows() not in (rows(seed=2), rows(step=1), stored)
    assert rows(longest=max(len(side) for row in stored for side in row) - 1) != rows()
    assert rows(longest=1) == stored
    batch = collate(SampledPairs(corpus, samplers, 1, 0, None), np.array([1, 0]))
    assert [row[row != 0].tolist() for row in batch.source] == [rows()[1][0], rows()[0][0]]
    one_sided = SampledPairs(corpus, BpeDropout(rate=0.5, sides="source").samplers(BPE, BPE), 1, 0, None)
    assert all(one_sided[i][1].tolist() == stored[i][1] for i in (0, 1)) and one_sided[0][0].tolist() != stored[0][0]
    noisy = WordNoise(blank=0.0, drop=0.0, distance=0).batch(one_sided, CorruptedRows(np.array([0]), 0), 1, BPE)
    assert noisy.source[0].tolist() == one_sided[0][0].tolist(), "noise is applied to the sample"


def test_a_run_resumed_equals_one_that_was_not_and_validates_on_the_best_segmentation(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    plain = to_dict(tiny_run.config(tiny_run.write_pairs(tmp_path / "p.tsv", 60), samples=0))
    plain["tokenizer"] = {"kind": "bpe", "vocab": 300}
    plain["data"] |= {"segmentation": {"kind": "bpe_dropout", "rate": 0.3}}
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
    plain["data"] |= {"segmentation": "best_segmentation"}
    list(start(recipe.load(plain), tmp_path / "best").events())
    assert tiny_run.outcome(tmp_path / "best")["tensors"] != tiny_run.outcome(tmp_path / "whole")["tensors"]
    stores = [ParallelCorpus.open(tmp_path / name / "data" / "valid") for name in ("best", "whole")]
    assert all((a == b).all() for i in range(10) for a, b in zip(stores[0][i], stores[1][i], strict=True))


def test_a_tokenizer_with_one_segmentation_is_refused_before_anything_is_written(tmp_path):
    plain = to_dict(tiny_run.config(tiny_run.write_pairs(tmp_path / "p.tsv", 60)))
    plain["data"] |= {"segmentation": "bpe_dropout"}
    with pytest.raises(
        ConfigError, match=r"data\.segmentation\.kind: needs a tokenizer of kind bpe on the source side"
    ):
        start(recipe.load(plain), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for tokenizer in (Tokenizer.train(Bytes(), []), Tokenizer.train(Words(vocab=262), TEXTS)):
        with pytest.raises(ConfigError, match="bpe_dropout needs a tokenizer of kind bpe, and this is one without"):
            bpe_dropout(tokenizer, 0.1)
    with pytest.raises(ConfigError, match="unigram_sampling needs a tokenizer of kind unigram, and this is BPE"):
        UnigramSampling(sides="target").samplers(BPE, BPE)
