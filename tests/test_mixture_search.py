"""Searched weights: the arithmetic, a search that finds the useful source, what going on leaves alone, mistakes."""

import json
import math
import os
import re
import shlex
import signal

import numpy as np
import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from dragoman import cli
from dragoman.compare.gains import Gain, gains_of, propose, raised
from dragoman.compare.mixture_search import (
    MixtureSearch,
    RoundFinished,
    SearchFinished,
    SearchPlanned,
    TrialFinished,
    TrialProgress,
)
from dragoman.compare.search_plan import SearchSettings, Updates
from dragoman.compare.trial import Trial
from dragoman.config import dump_yaml, load_yaml, to_dict
from dragoman.train import recipe

# ---- arithmetic -----------------------------------------------------------------------------------

WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.floats(1e-3, 1e3), min_size=2)
FACTORS = st.floats(1.01, 10)
GAINS = st.builds(Gain, st.floats(-2, 2), st.floats(0, 0.5), st.integers(1, 9))
CASES = WEIGHTS.flatmap(
    lambda weights: st.tuples(
        st.just(weights),
        st.fixed_dictionaries(
            {n: st.builds(Gain, st.floats(-2, 2), st.floats(0, 0.5), st.integers(1, 9)) for n in weights}
        ),
        FACTORS,
    )
)


def share(weights, name):
    return weights[name] / sum(weights.values())


@given(case=CASES)
def test_no_share_changes_by_more_than_the_factor_and_one_by_just_that(case):
    weights, gains, factor = case
    after = propose(weights, gains, factor)
    assert sum(after.values()) == approx(1) and list(after) == list(weights)
    changes = [abs(math.log(after[name] / share(weights, name))) for name in weights]
    slopes = {gains[name].mean if gains[name].certain else 0.0 for name in weights}
    assert max(changes) == approx(math.log(factor) if len(slopes) > 1 else 0.0, abs=1e-6)


@given(case=CASES)
def test_what_gains_more_grows_more_and_what_is_uncertain_keeps_its_place(case):
    weights, gains, factor = case
    after = propose(weights, gains, factor)
    growth = {name: math.log(after[name] / share(weights, name)) for name in weights}
    slope = {name: gains[name].mean if gains[name].certain else 0.0 for name in weights}
    for one in weights:
        for other in weights:
            if slope[one] >= slope[other]:
                assert growth[one] >= growth[other] - 1e-9
    if not any(slope.values()):
        assert after == approx({name: share(weights, name) for name in weights})


@given(weights=WEIGHTS, factor=FACTORS)
def test_raising_a_source_keeps_the_others_to_one_another(weights, factor):
    first, *others = weights
    after = raised(weights, first, factor)
    assert sum(after.values()) == approx(1)
    for other in others:
        assert after[first] / after[other] == approx(factor * weights[first] / weights[other])
        assert after[other] / after[others[0]] == approx(weights[other] / weights[others[0]])


def test_a_gain_is_paired_by_seed_and_per_unit_of_the_weights_logarithm():
    def gain(unchanged, raised, factor):
        return gains_of(unchanged, {"one": raised}, factor)["one"]

    same = gain([3.0, 5.0], [2.0, 4.0], math.e)
    assert (same.mean, same.error) == (approx(1.0), approx(0.0)) and same.certain
    assert gain([3.0, 5.0], [2.0, 4.0], math.e**2).mean == approx(0.5)
    apart = gain([3.0, 3.0], [2.0, 4.0], math.e)
    assert (apart.mean, apart.error) == (approx(0.0), approx(1.0)) and not apart.certain


@pytest.mark.parametrize("sources", [1, 2, 5])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_noise_is_called_certain_once_in_twenty_times_whatever_the_number_of_seeds(seeds, sources):
    noise = np.random.default_rng(1).normal(size=(1500, 1 + sources, seeds)) + np.arange(seeds)
    wrong = [gains_of(unchanged, dict(enumerate(raised)), math.e)[0].certain for unchanged, *raised in noise.tolist()]
    assert np.mean(wrong) == approx(0.05, abs=0.02)


# ---- a search -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no machine stops here


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Three hundred pairs like those of the validation set, and as many whose targets are digits."""
    folder = tmp_path_factory.mktemp("text")
    lines = tiny_run.write_pairs(folder / "all.tsv", 320).read_text().splitlines()
    (folder / "like.tsv").write_text("\n".join(lines[:300]) + "\n")
    (folder / "valid.tsv").write_text("\n".join(lines[300:]) + "\n")
    noise = [f"{line.split(chr(9))[0]}\t{10**9 + 7919 * number} 0 0 0 0" for number, line in enumerate(lines[:300])]
    (folder / "noise.tsv").write_text("\n".join(noise) + "\n")
    return folder


def plain(text):
    cfg = to_dict(tiny_run.config(text / "like.tsv", average=None, accumulate=1))
    table = {"kind": "table", "path": str(text / "valid.tsv")}
    cfg["data"] |= {"valid": table, "train": [cfg["data"]["train"][0], table | {"path": str(text / "noise.tsv")}]}
    cfg["data"]["hold_out"] |= {"valid": 0, "test": 0}
    return cfg


HOW = SearchSettings(budget=Updates(steps=12))


def test_the_source_that_is_like_the_validation_set_gains(text, tmp_path):
    *events, found, ended = MixtureSearch(recipe.load(plain(text)), HOW, tmp_path / "out").events()
    assert isinstance(found, RoundFinished) and isinstance(ended, SearchFinished) and ended.complete and ended.cost
    like, noise = (found.sources[name] for name in ("like", "noise"))
    assert like.before == approx(0.5, abs=0.01) and like.gain.mean > 0 > noise.gain.mean
    assert like.gain.certain and like.after > like.before
    assert max(like.after / like.before, noise.before / noise.after) == approx(1.5, rel=1e-4)
    planned = next(event for event in events if isinstance(event, SearchPlanned))
    assert planned.trials == 9 and planned.done == 0 and planned.seconds > 0
    left = [event.seconds_left for event in events if isinstance(event, TrialProgress)]
    assert left[0] > left[-1] == 0
    assert ended.cost.flops == approx(ended.cost.predicted_flops, rel=0.1)
    tokens = [sum(event.outcome.sources.values()) / 2 for event in events if isinstance(event, TrialFinished)]
    assert ended.cost.flops == approx(6 * planned.plan.parameters * sum(tokens))


def test_a_search_that_goes_on_makes_only_what_is_missing_and_ends_alike(text, tmp_path, monkeypatch, capsys):
    (tmp_path / "run.yaml").write_text(dump_yaml(plain(text)))
    command = ["search-mixture", str(tmp_path / "run.yaml"), "--steps", "12", "--output"]
    assert cli.main([*command, str(tmp_path / "whole")]) == 0
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    said = capsys.readouterr().out
    assert re.search(r"9 trials: about \d", said) and "6ND: " in said and "learning took" in said
    pasted = shlex.split(said.splitlines()[-1])
    assert pasted[:3] == ["dragoman", "train", str(tmp_path / "run.yaml")]
    mixture = recipe.load(plain(text), pasted[3:]).data.mixture
    assert to_dict(mixture) == load_yaml(tmp_path / "whole" / "weights.yaml")["data"]["mixture"]

    path, real, asked = tmp_path / "halves", Trial.events, []

    def interrupted(trial, prepared):
        for event in real(trial, prepared):
            yield event
            if trial.path.name == "like-seed-1" and getattr(event, "step", 0) == 6 and not asked:
                asked.append(event)  # once: a second signal leaves at once, whatever was there before
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trial, "events", interrupted)
        assert cli.main([*command, str(path)]) == 130
    assert "Stopped; the same command goes on." in capsys.readouterr().out
    done = path / "trials" / "round-1" / "unchanged-seed-1"
    stamp = (done / "config.yaml").stat().st_mtime_ns
    assert (path / "trials" / "round-1" / "like-seed-1" / "last").exists()
    assert cli.main([*command, str(path)]) == 0
    assert "9 trials, 1 of them finished before" in capsys.readouterr().out
    assert (done / "config.yaml").stat().st_mtime_ns == stamp
    assert json.loads((path / "report.json").read_text())["rounds"] == report["rounds"]
    stores = [folder / "data" / "train" for folder in (done, path / "prepared")]
    for one, other in zip(*(sorted(store.iterdir()) for store in stores), strict=True):
        assert one.samefile(other)
    assert cli.main([*command, str(path), "--step", "2"]) == 2
    assert "begun with other settings: step was 1.5, is now 2.0" in capsys.readouterr().err


def test_a_search_that_is_stopped_while_it_prepares_leaves_nothing(text, tmp_path, monkeypatch):
    from dragoman.train.tasks import translation

    monkeypatch.setattr(translation, "_train_tokenizers", lambda *given: signal.raise_signal(signal.SIGINT))
    *_, ended = MixtureSearch(recipe.load(plain(text)), HOW, tmp_path / "out").events()
    assert ended == SearchFinished("nothing is left of it", False) and not (tmp_path / "out").exists()


# ---- mistakes -------------------------------------------------------------------------------------

STEPS = ["--steps", "5"]
TRIAL_LENGTH = "the length of a trial is missing or given twice: use either --steps or --flops"
MISTAKES = {
    "no length": ([], TRIAL_LENGTH),
    "both lengths": (
        [*STEPS, "--flops", "1e9"],
        TRIAL_LENGTH,
    ),
    "one seed": ([*STEPS, "--seeds", "1"], "seeds: must be greater than or equal to 2, got 1"),
    "no factor": ([*STEPS, "--step", "1"], "step: must be greater than 1"),
    "too small": (["--flops", "10"], "--flops: less than one step, which takes "),
    "one source": ([*STEPS, "data.train=[{kind: table, path: like.tsv}]"], "data.train: like is the only source"),
    "zeros": ([*STEPS, "data.mixture={kind: weights, weights: {like: 0, noise: 0}}"], "weights: all are zero"),
    "a zero": (
        [*STEPS, "data.mixture={kind: weights, weights: {like: 1, noise: 0}}"],
        "data.mixture.weights.noise: 0 stays 0 whatever it is multiplied by",
    ),
    "stages": (
        [*STEPS, "data.mixture={kind: stages, stages: [{begins: 0, weights: {like: 1, noise: 1}}]}"],
        "data.mixture: stages cannot be searched",
    ),
    "no validation": ([*STEPS, "data.valid=null"], "data.valid: no validation text to measure gains on"),
    "no file": ([*STEPS, "data.train.1.path=nowhere.tsv"], "nowhere.tsv"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, text, tmp_path, capsys):
    words, says = MISTAKES[name]
    (tmp_path / "run.yaml").write_text(dump_yaml(plain(text)))
    assert cli.main(["search-mixture", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("dragoman: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists() or name == "too small"


def test_what_is_no_search_is_left_alone(text, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(dump_yaml(plain(text)))
    assert cli.main(["search-mixture", str(tmp_path / "run.yaml"), "--output", str(tmp_path), *STEPS]) == 2
    assert "exists and is not a search: choose another --output" in capsys.readouterr().err


def test_the_command_still_answers_to_its_earlier_name(text, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(dump_yaml(plain(text)))
    assert cli.main(["weigh", str(tmp_path / "run.yaml"), "--out", str(tmp_path), *STEPS]) == 2
    assert "exists and is not a search" in capsys.readouterr().err
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "search-mixture" in shown and "weigh " not in shown
