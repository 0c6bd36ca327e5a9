"""Learning rates against their formulas, worked out with fifty digits."""

from decimal import Decimal, getcontext

import pytest

from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError
from dragoman.train.schedule import Constant, Cosine, InverseSquareRoot, Noam, Schedule, WarmupStableDecay

getcontext().prec = 50
DECLINING = [Cosine(peak=0.5, warmup=10, floor=0.1), WarmupStableDecay(peak=0.5, warmup=10, decay=0.3, floor=0.1)]
ALL = [Noam(warmup=10, dim=64), InverseSquareRoot(peak=0.5, warmup=10), Constant(peak=0.5, warmup=10), *DECLINING]


def name(schedule) -> str:
    return schedule.kind


@pytest.mark.parametrize("dim", [64, 512, 1000])
@pytest.mark.parametrize("step", [1, 2, 3999, 4000, 4001, 100_000])
def test_noam_is_the_papers_equation_3(step, dim):
    d, s, w = Decimal(dim), Decimal(step), Decimal(4000)
    exact = min(1 / s.sqrt(), s / (w * w.sqrt())) / d.sqrt()
    assert Noam(warmup=4000, dim=dim).rate(step, total=None) == pytest.approx(float(exact), rel=1e-15)


@pytest.mark.parametrize("step", [1, 10, 11, 1000])
def test_inverse_square_root_is_noam_with_the_peak_stated(step):
    noam = Noam(warmup=10, dim=64)
    stated = InverseSquareRoot(peak=noam.rate(10, None), warmup=10)
    assert stated.rate(step, None) == pytest.approx(noam.rate(step, None), rel=1e-14)


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_every_schedule_rises_in_a_straight_line_to_its_peak_and_never_above(schedule):
    rates = [schedule.rate(step, 100) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([rates[9] * i / 10 for i in range(1, 11)])
    assert max(rates) == rates[9]


@pytest.mark.parametrize("schedule", DECLINING, ids=name)
def test_a_declining_schedule_ends_at_its_floor_and_never_rises_after_the_warm_up(schedule):
    rates = [schedule.rate(step, 100) for step in range(10, 101)]
    assert rates[-1] == pytest.approx(0.05)
    assert rates == sorted(rates, reverse=True)


def test_cosine_is_halfway_down_halfway_through():
    assert Cosine(peak=1.0, warmup=10).rate(55, 100) == pytest.approx(0.5)


def test_the_stable_phase_is_stable():
    rates = {WarmupStableDecay(peak=1.0, warmup=10, decay=0.3).rate(step, 100) for step in range(10, 71)}
    assert rates == {1.0}


@pytest.mark.parametrize("schedule", DECLINING, ids=name)
def test_while_the_length_of_the_run_is_unknown_nothing_declines(schedule):
    assert schedule.rate(10**6, None) == 0.5


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_a_schedule_survives_the_way_through_a_file(schedule):
    assert from_dict(Schedule, to_dict(schedule)) == schedule


def test_a_negative_warm_up_is_refused_by_name():
    with pytest.raises(ConfigError, match="warmup"):
        from_dict(Schedule, {"kind": "cosine", "peak": 1e-3, "warmup": -1})
