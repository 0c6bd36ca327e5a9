"""Statistics of studies: against scipy, against definitions, and in words."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from scipy import stats

from dragoman.compare.figure import Figure, RatioOfCounts, mean_of, scored
from dragoman.compare.statistics import (
    Estimate,
    holm,
    over_seeds,
    pooled_error,
    t_probability,
    t_quantile,
    with_error,
)
from dragoman.compare.verdicts import decimals, verdicts_of
from dragoman.evaluate.metrics import compare_counts

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


@given(t=st.floats(-60, 60), nu=st.floats(0.6, 400) | st.floats(0, 30).map(lambda digits: 10**digits))
def test_probabilities_of_students_t_are_those_of_scipy(t, nu):
    assert t_probability(t, nu) == approx(stats.t.cdf(t, nu), abs=1e-7)


@pytest.mark.parametrize("nu", [1, 2, 3.5, 40, 1e4, 999_999, 1e7, 1e16, 1e20, 1e50, math.inf])
@pytest.mark.parametrize("probability", [0.0005, 0.025, 0.5, 0.8, 0.975])
def test_quantiles_of_students_t_are_those_of_scipy(probability, nu):
    expected = stats.norm.ppf(probability) if nu > 1e15 else stats.t.ppf(probability, nu)
    assert t_quantile(probability, nu) == approx(
        expected, abs=1e-7 if nu < 1e3 else 1e-5, rel=1e-7 if nu < 1e5 else 1e-5
    )


@given(values=VALUES)
def test_an_interval_over_seeds_is_that_of_the_t_test(values):
    found = over_seeds(values)
    if found.error > 1e-9:
        expected = stats.t.interval(0.95, len(values) - 1, found.mean, stats.sem(values))
        assert found.interval() == approx(expected, rel=1e-6, abs=1e-6)
        assert found.p == approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6, abs=1e-7)


@given(
    rows=st.integers(2, 8).flatmap(
        lambda n: st.lists(st.lists(st.floats(-9, 9), min_size=n, max_size=n), min_size=2, max_size=2)
    )
)
def test_of_two_contestants_the_pooled_error_is_that_of_the_paired_t_test(rows):
    error, freedom = pooled_error(rows)
    paired = over_seeds([one - other for one, other in zip(*rows, strict=True)])
    assert error == approx(paired.error, abs=1e-9) and freedom == paired.freedom


def test_pooled_errors_do_not_see_what_seeds_or_contestants_share():
    assert pooled_error([[1, 2, 5], [11, 12, 15], [4, 5, 8]])[0] == approx(0)


def test_more_contestants_tell_more_of_the_noise():
    random = np.random.default_rng(1)
    assert pooled_error(random.normal(size=(6, 3)).tolist())[1] == 10


@given(p=st.lists(st.floats(0, 1), max_size=9))
def test_holms_correction_never_lowers_p_and_keeps_the_order(p):
    adjusted = holm(p)
    assert all(after >= before for before, after in zip(p, adjusted, strict=True)) and max(adjusted, default=0) <= 1
    assert all(adjusted[i] <= adjusted[j] for i in range(len(p)) for j in range(len(p)) if p[i] < p[j])


def test_holms_correction_is_that_of_the_paper():
    assert holm([0.01, 0.04, 0.03]) == approx([0.03, 0.06, 0.06])


def test_a_second_error_adds_its_variance():
    assert with_error(Estimate(1, 3, 2), 4).error == approx(5)
    assert with_error(Estimate(1, 3, 2), 4).freedom == approx(2 * 5**4 / 3**4)
    assert with_error(Estimate(1, 0, 1), 0.5).freedom == math.inf


def test_a_detectable_difference_is_shown_by_four_of_five_studies():
    random = np.random.default_rng(7)
    true = Estimate(0, 1 / math.sqrt(12), 11).detectable()
    shown = [over_seeds(random.normal(true, 1, 12).tolist()).p < 0.05 for _ in range(600)]
    assert 0.74 < sum(shown) / len(shown) < 0.88


# ---- verdicts -------------------------------------------------------------------------------------


def by_run(values, **more):
    return {(name, seed): Figure(value, **more) for name, each in values.items() for seed, value in enumerate(each)}


def words(values, contestants=None, against=None, **more):
    found = verdicts_of({"BLEU": by_run(values, **more)}, contestants or list(values), against)
    return [verdict.words for verdict in found]


def test_a_difference_is_told_with_its_size_and_interval():  # of 1.1, 1.4, 1.4: 1.3 +- 4.303 x 0.1
    (said,) = words({"A": [31.1, 31.3, 31.2], "B": [30.0, 29.9, 29.8]})
    assert said == "A is better than B by 1.30 BLEU, 95% interval 0.87 to 1.73"


@pytest.mark.parametrize(("unit", "said"), [("tokens/s", "1,300 tokens/s in"), ("%", "1,300 points in")])
def test_a_difference_has_its_unit_and_a_mark_for_thousands(unit, said):
    (shown,) = words({"A": [3110.0, 3130.0, 3120.0], "B": [1800.0, 1840.0, 1820.0]}, unit=unit)
    assert f"A is better than B by {said} BLEU, 95% interval 1," in shown
    (nothing,) = words({"A": [3000.0, 4000.0], "B": [4000.0, 3100.0]}, unit=unit)
    assert re.search(r"one of \d+,\d{3} (tokens/s|points) could have been", nothing)


def test_lower_may_be_better():
    (said,) = words({"A": [2.1, 2.3, 2.2], "B": [1.0, 0.9, 0.8]}, higher_is_better=False)
    assert said.startswith("B is better than A by 1.30 BLEU")


def test_where_neither_is_better_one_is_higher():
    (said,) = words({"A": [2.1, 2.3, 2.2], "B": [1.0, 0.9, 0.8]}, higher_is_better=None)
    assert said.startswith("A is higher than B by 1.30 BLEU")


def test_no_difference_is_told_with_the_one_that_could_have_been_shown():
    (said,) = words({"A": [30.0, 31.0, 32.0], "B": [31.5, 30.0, 31.0]})
    assert said.startswith("no difference between A and B in BLEU was shown; one of ") and said.endswith(
        "could have been"
    )


def test_many_comparisons_need_a_larger_difference():
    values = {"A": [30.0, 30.3, 30.6], "B": [31.3, 30.9, 31.2]} | {f"C{i}": [30.1, 30.4, 30.5] for i in range(6)}
    alone = words({name: values[name] for name in "AB"} | {"C0": values["C0"]}, against="A")
    assert len(words(values)) == 28 and len(alone) == 2


def test_a_contestant_that_did_not_finish_is_not_compared():
    (said,) = words({"A": [31.1, 31.3, 31.2], "B": [30.0]}, ["A", "B"])
    assert said == "BLEU: A and B cannot be compared: A has it from 3, B has it from 1 of the seeds"


def test_the_same_figure_with_every_seed_is_no_difference():
    assert words({"A": [1.0, 1.0], "B": [1.0, 1.0]}) == [
        "no difference between A and B in BLEU: it is the same with every seed"
    ]


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("by", [1.0, 0.1 + 0.2])
def test_seeds_that_all_show_the_same_tell_what_their_signs_do_unless_the_figure_is_exact(seeds, by):
    values = {"A": [0.1 * i + by for i in range(seeds)], "B": [0.1 * i for i in range(seeds)]}
    (found,) = verdicts_of({"reach": by_run(values)}, ["A", "B"], None)
    assert found.p == approx(2 * 0.5**seeds, abs=1e-9)
    assert (found.shown == "a") == (found.p < 0.05) == (found.interval[0] > 0)
    assert "coarse scale" in found.words or found.shown == "a"
    (found,) = verdicts_of({"parameters": by_run(values, exact=True)}, ["A", "B"], None)
    assert found.shown == "a" and found.p == 0 and found.words.endswith("with every seed the same")


@pytest.mark.parametrize("examples", [4, 8, 100])
def test_examples_that_all_differ_in_the_same_way_count_as_seeds_do(examples):
    runs = {(name, seed): mean_of([right] * examples) for name, right in (("A", 1), ("B", 0)) for seed in (1, 2)}
    (found,) = verdicts_of({"accuracy": runs}, ["A", "B"], None)
    assert found.p == approx(2 * 0.5 ** min(examples, 40), abs=1e-9) and (found.shown == "a") == (examples > 5)


def test_test_sets_add_their_error_and_nothing_else():
    random = np.random.default_rng(3)
    right = {name: random.random(60) < rate for name, rate in (("A", 0.7), ("B", 0.6))}
    runs = {(name, seed): mean_of(list(map(float, right[name]))) for name in right for seed in (1, 2)}
    (found,) = verdicts_of({"accuracy": runs}, ["A", "B"], None)
    counts = [np.column_stack([right[name], np.ones(60)]).astype(float) for name in ("B", "A")]
    expected = compare_counts(RatioOfCounts(), *counts)
    assert found.over_seeds == approx((found.difference, found.difference))
    assert found.over_examples == approx(expected.interval)
    assert found.interval == approx(expected.interval, abs=0.03)


def test_a_score_is_resampled_like_every_other():
    counts = np.column_stack([np.arange(20.0), np.ones(20)])
    figure = scored(RatioOfCounts("mean"), counts, unit="x")
    assert figure.value == 9.5 and figure.unit == "x" and len(figure.resampled) == 1000
    assert np.std(figure.resampled) == approx(np.std(np.arange(20)) / math.sqrt(20), rel=0.1)


def test_a_test_set_of_one_example_says_nothing_of_others():
    assert mean_of([3.0]).value == 3 and mean_of([3.0]).resampled is None


def test_numbers_are_shown_to_two_digits_of_their_uncertainty():
    assert [decimals(size) for size in (0.031, 0.3, 3, 31, 0)] == [3, 2, 1, 0, 0]
