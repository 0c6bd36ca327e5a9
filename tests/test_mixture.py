"""Mixtures in a run: each source gives its share, every pair equally often, and a step is a function of its number."""

import itertools
import json
import os
import re

import numpy as np
import pytest
import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batch import sentences
from tiny_run import outcome, rows

from dragoman import cli
from dragoman.config import from_dict, to_dict
from dragoman.data.batch import Batches
from dragoman.data.mixture import Concatenate, SourceMixture, Stages, Temperature, Weights
from dragoman.data.order import EasyFirst, Length, Rarity, Shuffled, token_rarity
from dragoman.data.rounds import Rounds
from dragoman.errors import ConfigError
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.formats.pairs import names_of
from dragoman.text.lines import Sourced
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes
from dragoman.train.changes import changed
from dragoman.train.events import Saved, Started, StepsReported
from dragoman.train.run import resume, start

# ---- rounds ---------------------------------------------------------------------------------------


def rounds(sizes, shares, *, tokens=300, seed=1, accumulate=1, available=lambda step: 1.0, lengths=None):
    lengths = sentences(sum(sizes)) if lengths is None else lengths
    ends = np.cumsum([0, *sizes])
    pools = [np.arange(begin, end) for begin, end in itertools.pairwise(ends)]
    take = Batches(lengths, tokens, seed, accumulate).steps_per_epoch
    return Rounds(
        lengths,
        pools,
        shares=shares if callable(shares) else lambda step: shares,
        available=available,
        steps_per_epoch=take,
        tokens=tokens,
        seed=seed,
        accumulate=accumulate,
    )


SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=4)
SETTINGS = {
    "sizes": SIZES,
    "tokens": st.integers(1, 200),
    "seed": st.integers(0, 9),
    "accumulate": st.integers(1, 4),
    "data": st.data(),
}


def drawn_shares(data, sizes):
    weights = data.draw(st.lists(st.integers(0, 5), min_size=len(sizes), max_size=len(sizes)).filter(any))
    return [weight / sum(weights) for weight in weights]


@given(**SETTINGS, count=st.integers(1, 6))
def test_each_source_gives_its_share_and_every_pair_of_it_equally_often(sizes, tokens, seed, accumulate, data, count):
    shares = drawn_shares(data, sizes)
    plan = rounds(sizes, shares, tokens=tokens, seed=seed, accumulate=accumulate)
    drawn = np.concatenate([plan.drawn(number) for number in range(count)])
    for (begin, end), share in zip(zip(np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False), shares, strict=True):
        mine = drawn[(begin <= drawn) & (drawn < end)]
        assert abs(len(mine) - share * len(drawn)) <= len(sizes)
        times = np.bincount(mine - begin, minlength=end - begin)
        assert times.max() - times.min() <= 1


@given(
    **SETTINGS, steps=st.lists(st.integers(0, 250), min_size=1, max_size=6), available=st.sampled_from([0.01, 0.4, 1.0])
)
@settings(max_examples=60)
def test_a_step_has_its_batches_whatever_was_asked_before(sizes, tokens, seed, accumulate, data, steps, available):
    shares = drawn_shares(data, sizes)
    setting = {"tokens": tokens, "seed": seed, "accumulate": accumulate, "available": lambda step: available}
    used = rounds(sizes, shares, **setting)
    for step in steps:
        batches, fresh = used.at(step), rounds(sizes, shares, **setting).at(step)
        assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in fresh]
        assert len(batches) == accumulate and all(len(batch) for batch in batches)
        for batch in batches:
            assert len(batch) == 1 or len(batch) * used.lengths[batch].max() <= tokens


def test_of_a_round_little_is_left_out_and_little_is_padding():
    plan = rounds([26_000, 3_000], [0.5, 0.5], tokens=4096)
    batches = [batch for step in range(plan.steps) for batch in plan.at(step)]
    assert sum(map(len, batches)) > 0.98 * len(plan.drawn(0))
    full = Batches(plan.lengths, 4096, 1)
    assert plan.padding_share < full.padding_share + 0.02
    sizes = [sum(plan.lengths[batch].max(axis=1)) for batch in batches]
    assert np.median(sizes) > 0.95 * 4096


def test_shares_may_change_with_the_step():
    plan = rounds([500, 500], lambda step: [1.0, 0.0] if step < 40 else [0.0, 1.0], tokens=100)
    assert plan.steps == 100
    plan.steps = 20
    assert all(plan.drawn(number).max() < 500 for number in (0, 1))
    assert all(plan.drawn(number).min() >= 500 for number in (2, 3))


def test_of_a_pool_that_is_half_open_only_the_easier_half_comes():
    plan = rounds([400], [1.0], available=lambda step: 0.5)
    drawn = plan.drawn(3)
    assert drawn.max() < 200 and set(np.bincount(drawn)) <= {len(drawn) // 200, len(drawn) // 200 + 1}


def test_another_seed_and_another_round_draw_otherwise():
    plan, other = rounds([600], [1.0]), rounds([600], [1.0], seed=2)
    assert plan.drawn(0).tolist() != other.drawn(0).tolist() != plan.drawn(1).tolist()


# ---- what may be chosen ---------------------------------------------------------------------------


def test_shares_of_each_kind():
    sizes = {"big": 800, "small": 200}
    assert Concatenate().shares(sizes, 0.0) == pytest.approx([0.8, 0.2])
    assert Temperature(temperature=1.0).shares(sizes, 0.0) == pytest.approx([0.8, 0.2])
    assert Temperature(temperature=2.0).shares(sizes, 0.0) == pytest.approx([2 / 3, 1 / 3])
    assert Temperature(temperature=1e9).shares(sizes, 0.0) == pytest.approx([0.5, 0.5])
    assert Weights(weights={"small": 3.0, "big": 1.0}).shares(sizes, 0.0) == pytest.approx([0.25, 0.75])


def test_stages_hold_from_where_they_begin():
    stages = from_dict(
        Stages,
        {"stages": [{"begins": 0, "weights": {"a": 1, "b": 0}}, {"begins": 0.5, "weights": {"a": 1, "b": 3}}]},
    )
    stages.check(["a", "b"])
    sizes = {"a": 5, "b": 5}
    assert [stages.shares(sizes, done) for done in (0.0, 0.49)] == [[1, 0], [1, 0]]
    assert [stages.shares(sizes, done) for done in (0.5, 1.0)] == [[0.25, 0.75]] * 2
    assert stages.used("b")


MISTAKES = [
    ({"kind": "weights", "weights": {"a": 0, "b": 0}}, "weights: all are zero"),
    ({"kind": "weights", "weights": {"a": -1, "b": 1}}, "weights: -1.0 is not a weight: give 0 or more"),
    ({"kind": "weights", "weights": {"a": 1, "c": 1}}, "weights: no 'c' here. Known: a, b."),
    ({"kind": "weights", "weights": {"a": 1}}, "weights: none for 'b': give each source one, or 0 to leave it out"),
    ({"kind": "stages", "stages": []}, "stages: begin at []: the first at 0"),
    ({"kind": "stages", "stages": [{"begins": 0.5, "weights": {"a": 1, "b": 1}}]}, "stages: begin at [0.5]"),
    ({"kind": "stages", "stages": [{"begins": 0, "weights": {"a": 0, "b": 0}}]}, "stages.0.weights: all are zero"),
]


@pytest.mark.parametrize("mixture, says", MISTAKES)
def test_a_mixture_that_is_none_is_refused(mixture, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        from_dict(SourceMixture, mixture).check(["a", "b"])


def test_sources_go_by_their_names_or_their_files():
    def source(path, **more):
        return {"kind": "part", "pairs": {"kind": "table", "path": path}} | more

    plain = [
        {"kind": "table", "path": "x/news.tsv.gz"},
        {"kind": "text_files", "source": "talks.en", "target": "talks.de"},
        {"kind": "table", "path": "y/news.tsv"},
        source("z/news.tsv", name="news-2"),
    ]
    cfg = tiny_run.recipe.load({"preset": "transformer-tiny", "data": {"train": plain}})
    assert names_of(cfg.data.train) == ["news", "talks", "news-3", "news-2"]
    for name, says in (("", "'' is not a name"), ("a\tb", "is not a name")):
        with pytest.raises(ConfigError, match=says):
            names_of(
                tiny_run.recipe.load(
                    {"preset": "transformer-tiny", "data": {"train": [source("a.tsv", name=name)]}}
                ).data.train
            )


# ---- difficulty -----------------------------------------------------------------------------------


def test_competence_grows_from_the_beginning_to_everything():
    order = EasyFirst(begin=0.01, until=0.5)
    assert order.available(0.0) == pytest.approx(0.01)
    assert order.available(0.125) == pytest.approx(np.sqrt(0.25 * (1 - 1e-4) + 1e-4))
    assert order.available(0.5) == order.available(1.0) == 1.0
    assert Shuffled().available(0.0) == 1.0


def test_rare_words_and_long_sentences_are_hard(tmp_path):
    tokenizer = Tokenizer.train(Bytes(), [])
    texts = ["aaaa", "aaaaaaaa", "zzzz", "aaza"]
    corpus = ParallelCorpus.build(tmp_path / "c", [Sourced(t, "x", "s") for t in texts], tokenizer, tokenizer)
    assert Length().of(corpus).tolist() == [5, 9, 5, 5]
    rarity = Rarity().of(corpus)
    counts = np.bincount(corpus.source.ids)
    by_hand = [-np.log(counts[corpus[i][0]] / counts.sum()).sum() for i in range(4)]
    np.testing.assert_allclose(rarity, by_hand)
    assert rarity[0] < rarity[3] < rarity[2]


def test_rarity_is_the_same_in_pieces(tmp_path, monkeypatch):
    tokenizer = Tokenizer.train(Bytes(), [])
    pairs = [Sourced(f"word {i * i}", "x", "s") for i in range(50)]
    corpus = ParallelCorpus.build(tmp_path / "c", pairs, tokenizer, tokenizer)
    whole = token_rarity(corpus.source)
    monkeypatch.setattr("dragoman.data.order.CHUNK", 7)
    np.testing.assert_allclose(token_rarity(corpus.source), whole)


# ---- the store ------------------------------------------------------------------------------------


def test_the_store_knows_which_source_each_pair_is_from(tmp_path):
    tokenizer = Tokenizer.train(Bytes(), [])
    pairs = [Sourced("x" * n, "y", name) for name, n in (("a", 3), ("a", 99), ("b", 98), ("c", 1), ("c", 2))]
    corpus = ParallelCorpus.build(tmp_path / "c", pairs, tokenizer, tokenizer, longest=20, grouped=True)
    corpus = ParallelCorpus.open(corpus.folder)
    assert corpus.sources == {"a": 1, "c": 2} and corpus.left_out == 2
    assert corpus.rows_of(["c", "b", "a"]) == [range(1, 3), range(0), range(1)]
    assert corpus.source_indices(np.array([2, 0, 1])).tolist() == [1, 0, 1]
    assert corpus.tokens() == {"a": {"pairs": 1, "tokens": 6}, "c": {"pairs": 2, "tokens": 9}}


# ---- runs -----------------------------------------------------------------------------------------

CHOICES = {
    "weights": {"mixture": {"kind": "weights", "weights": {"real": 1, "more": 3}}},
    "stages": {
        "mixture": {
            "kind": "stages",
            "stages": [
                {"begins": 0, "weights": {"real": 1, "more": 0}},
                {"begins": 0.5, "weights": {"real": 1, "more": 2}},
            ],
        }
    },
    "easy first": {"order": {"kind": "easy_first", "begin": 0.1}},
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    lines = tiny_run.write_pairs(folder / "all.tsv").read_text().splitlines()
    (folder / "real.tsv").write_text("\n".join(lines[:150]) + "\n")
    (folder / "more.tsv").write_text("\n".join(lines[150:]) + "\n")
    return folder


def config(text, choice, **train):
    plain = to_dict(tiny_run.config(text / "real.tsv", **{"validate_every": 100, "average": None} | train))
    plain["data"]["train"] += [{"kind": "table", "path": str(text / "more.tsv")}]
    return tiny_run.recipe.load(tiny_run.merge(plain, {"data": choice}))


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no machine stops here


@pytest.mark.parametrize("name", CHOICES)
def test_a_resumed_run_equals_the_uninterrupted_one(name, text, tmp_path):
    cfg = config(text, CHOICES[name], report_every=1)
    events = list(start(cfg, tmp_path / "whole").events())
    running = start(cfg, tmp_path / "halves").events()
    assert any(isinstance(event, Saved) and event.step == 6 for event in running)
    running.close()
    list(resume(tmp_path / "halves").events())
    end = outcome(tmp_path / "whole")
    assert outcome(tmp_path / "halves") == end
    seen = [event.sources for event in events if isinstance(event, StepsReported)]
    assert end["progress"]["sources"] == seen[-1] and seen[-1]["real"]
    if name == "weights":
        assert 0.7 < seen[-1]["more"] / sum(seen[-1].values()) < 0.8
    if name == "stages":
        round = next(event for event in events if isinstance(event, Started)).steps_per_epoch
        assert 6 <= [bool(now["more"]) for now in seen].index(True) < 6 + round


def test_a_run_tells_how_much_of_each_source_there_is_and_was_seen(text, tmp_path):
    list(start(config(text, CHOICES["weights"]), tmp_path / "run").events())
    stored = json.loads((tmp_path / "run" / "data" / "report.json").read_text())["sources"]
    assert stored["real"]["pairs"] + stored["more"]["pairs"] > 150
    seen = rows(tmp_path / "run" / "metrics.jsonl")[-2]["sources"]
    page = (tmp_path / "run" / "report.html").read_text()
    for name in ("real", "more"):
        assert f"<td>{seen[name]:,}</td>" in page and f"<td>{stored[name]['tokens']:,}</td>" in page


def test_a_run_of_one_source_tells_none(text, tmp_path):
    list(start(tiny_run.config(text / "real.tsv"), tmp_path / "run").events())
    assert "Sources" not in (tmp_path / "run" / "report.html").read_text()


def test_minutes_and_shares_of_the_run_do_not_go_together(text, tmp_path):
    for name, path in (("stages", "data.mixture: stages"), ("easy first", "data.order: easy_first")):
        with pytest.raises(ConfigError, match=f"{path} needs the number of steps in the run"):
            start(config(text, CHOICES[name], budget={"kind": "minutes", "minutes": 1}), tmp_path / "run")


def test_mistakes_are_one_line_and_leave_nothing_behind(text, tmp_path, capsys):
    from dragoman.config import dump_yaml

    (tmp_path / "run.yaml").write_text(dump_yaml(config(text, {})))
    command = ["train", str(tmp_path / "run.yaml"), "--run", str(tmp_path / "run")]
    assert cli.main([*command, "data.mixture={kind: weights, weights: {reel: 1, more: 1}}"]) == 2
    assert capsys.readouterr().err == (
        "dragoman: data.mixture.weights: no 'reel' here. Did you mean 'real'? Known: real, more.\n"
    )
    mixture = "data.mixture={kind: weights, weights: {real: 1, more: 1}}"
    assert cli.main([*command, mixture, "data.cleaning.max_words=0"]) == 2
    (tmp_path / "copies.tsv").write_text("a\ta\nb\tb\n")
    swapped = f"data.train.1={{kind: part, name: more, pairs: {{kind: table, path: {tmp_path / 'copies.tsv'}}}}}"
    capsys.readouterr()
    assert cli.main([*command, swapped, mixture]) == 2
    assert "data.mixture: no pair of 'more' is left to train on" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_older_than_a_setting_goes_on_with_its_default(text):
    cfg = config(text, {})
    older = to_dict(cfg)
    del older["data"]["mixture"], older["data"]["order"]
    assert changed(older, older, deliberate=False, where="run") == (cfg, [])
