"""Budgets of minutes: kept whatever the machine's load does, and repeated to the bit by a resumed run."""

import itertools
import random
import shutil
import signal

import pytest
import tiny_run
from tiny_run import outcome, rows

from dragoman.checkpoint import RunDirectory
from dragoman.train.events import Finished, Saved, Started
from dragoman.train.forecast import Forecast, forecast
from dragoman.train.run import resume, start
from dragoman.train.schedule import Constant, Cosine, InverseSquareRoot, Noam, WarmupStableDecay
from dragoman.train.stopwatch import Lap, Stopwatch

BUDGET = 600.0


def learn(cost, budget=BUDGET, schedule=None):
    """Seconds spent, and the learning rates, of a run whose step ``n`` takes ``cost(n, seconds)``."""
    seconds, now, rates = 0.0, None, []
    for step in itertools.count(1):
        if schedule:
            rates.append(schedule.rate(step, now.course.horizon(step) if now else None))
        seconds += cost(step, seconds)
        now = forecast(budget, now, step, seconds) or now
        if now and step >= now.total:
            return seconds, rates
    raise AssertionError


def noisy(chance, mean):
    return mean * chance.lognormvariate(0, 0.3)


def loaded(seed):
    """A machine whose speed changes at random moments by up to five times, with steps of 0.16 to 2 s."""
    chance = random.Random(seed)
    mean = 10 ** chance.uniform(-0.8, 0.3)
    changes = sorted((chance.uniform(0, BUDGET), chance.uniform(1, 5)) for _ in range(chance.randint(1, 12)))
    return lambda step, seconds: (
        noisy(chance, mean) * next((factor for moment, factor in reversed(changes) if moment <= seconds), 1.0)
    )


@pytest.mark.parametrize("seed", range(100))
def test_a_budget_of_minutes_is_kept_within_a_tenth_while_the_load_changes(seed):
    assert learn(loaded(seed))[0] == pytest.approx(BUDGET, rel=0.1)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("slow", [1, 2, 5])
def test_it_is_kept_within_three_percent_on_a_steady_machine_however_slow_the_beginning_is(seed, slow):
    chance = random.Random(seed)
    mean, phase = 10 ** chance.uniform(-0.8, 0.3), chance.uniform(0.01, 0.3) * BUDGET
    seconds, _ = learn(lambda step, seconds: noisy(chance, mean) * (slow if seconds < phase else 1))
    assert seconds == pytest.approx(BUDGET, rel=0.03)


@pytest.mark.parametrize("stall", [5, 30, 90])
def test_a_stall_shortly_before_the_end_does_not_end_the_run_early(stall):
    hit = []

    def cost(step, seconds):
        if seconds > BUDGET - 100 and not hit:
            hit.append(step)
            return stall
        return 0.05

    assert learn(cost)[0] == pytest.approx(BUDGET, rel=0.01)


@pytest.mark.parametrize("length", [0.5, 1.4, 7, 59, 61, 600, 900])
def test_steps_that_are_long_for_the_budget_end_at_the_nearest_one(length):
    seconds, _ = learn(lambda *now: length)
    assert abs(seconds - BUDGET) <= max(length / 2, 0.01 * BUDGET) or seconds == length


DECLINING = {
    "cosine": Cosine(peak=1.0, warmup=50),
    "cosine to a floor": Cosine(peak=1.0, warmup=50, floor=0.1),
    "line": WarmupStableDecay(peak=1.0, warmup=50, decay=1.0),
    "half": WarmupStableDecay(peak=1.0, warmup=50, decay=0.5),
    "fifth": WarmupStableDecay(peak=1.0, warmup=50),
}


@pytest.mark.parametrize("schedule", DECLINING.values(), ids=DECLINING)
@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_has_declined_to_its_floor_when_the_time_is_spent(schedule, seed):
    _, rates = learn(loaded(seed), schedule=schedule)
    assert rates[-1] == pytest.approx(schedule.floor, abs=0.1), "but for one step, which may be long"
    peak = rates.index(max(rates))
    rises = [after - before for before, after in itertools.pairwise(rates[peak:])]
    assert max(rises) < 0.1, "no forecast throws it back"


@pytest.mark.parametrize("slow", [2, 5])
def test_the_decline_begins_when_its_share_of_the_time_begins_however_slow_the_run_was(slow):
    times, schedule = [], WarmupStableDecay(peak=1.0, warmup=50, decay=0.5)

    def cost(step, seconds):
        times.append(seconds)
        return 0.05 * (slow if seconds < BUDGET / 5 else 1)

    _, rates = learn(cost, schedule=schedule)
    begins = next(i for i, rate in enumerate(rates) if i > 50 and rate < 0.999)
    assert times[begins] == pytest.approx(BUDGET / 2, rel=0.02)


@pytest.mark.parametrize("schedule", [Noam(dim=64), InverseSquareRoot(peak=1.0), Constant(peak=1.0)], ids=str)
def test_a_schedule_without_an_end_does_not_ask_for_the_time(schedule):
    now = Forecast(step=10, seconds=60.0, total=100, budget=BUDGET)
    assert schedule.rate(20, now.course.horizon(20)) == schedule.rate(20, None)


def test_some_hundred_forecasts_are_written_at_most():
    made, now, seconds = 0, None, 0.0
    for step in itertools.count(1):
        seconds += 0.05
        if new := forecast(BUDGET, now, step, seconds):
            now, made = new, made + 1
        if now and step >= now.total:
            break
    assert 100 < made < 300


# ---- runs -----------------------------------------------------------------------------------------


class Fake(Stopwatch):
    """Tells for each step what ``cost`` says, whatever really passed."""

    def __init__(self, cost):
        self.cost, self.step = cost, None

    def lap(self, usual):
        return Lap(self.cost(next(self.step)), 0.0)


def timed(run, cost):
    run.stopwatch = Fake(cost)
    run.stopwatch.step = itertools.count(run.progress.step + 1)
    return run


def changing(step):
    """Slow while compiling, busy for a while in the middle."""
    return 3.0 * (4 if step <= 3 else 2 if 12 <= step <= 15 else 1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


def config(pairs, **train):
    return tiny_run.config(pairs, **{"budget": {"kind": "minutes", "minutes": 1.2}} | train)


@pytest.fixture(scope="module")
def whole(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    events = list(timed(start(config(pairs), path), changing).events())
    return path, events


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


def test_a_run_ends_when_its_minutes_are_spent_and_says_so(whole):
    path, events = whole
    end = events[-1]
    assert isinstance(end, Finished) and end.complete
    assert end.reason.endswith(f"minutes of learning are spent, {end.step} steps")
    assert end.command == f"dragoman train {path} --resume train.budget.minutes=2.4"
    assert RunDirectory.open(path).load("last").progress["seconds"] == pytest.approx(72, abs=3)


def test_stopped_after_any_event_it_goes_on_to_the_same_end(whole, pairs, tmp_path):
    path, events = whole
    begin = next(i for i, event in enumerate(events) if isinstance(event, Started))
    for count in range(begin + 1, len(events), 4):
        again = tmp_path / f"stopped-{count}"
        stopped = timed(start(config(pairs), again), changing).events()
        for _ in range(count):
            next(stopped)
        stopped.close()
        list(timed(resume(again), changing).events())
        assert outcome(again) == outcome(path), f"stopped after event {count}"
        assert rows(again / "forecasts.jsonl") == rows(path / "forecasts.jsonl")


def test_steps_made_again_are_the_same_whatever_time_they_take_now(whole, pairs, tmp_path):
    """The run was killed after its last forecast and before its next checkpoint: the forecasts are there."""
    path, _ = whole
    for step in (3, 9):
        again = tmp_path / f"killed-{step}"
        shutil.copytree(path, again, symlinks=True)
        list(timed(resume(again, checkpoint=f"step-{step:06d}"), lambda step: 17.0).events())
        assert outcome(again) == outcome(path)


def test_a_forecast_that_a_crash_cut_short_is_made_again(pairs, tmp_path):
    path = tmp_path / "run"
    events = timed(start(config(pairs), path), changing).events()
    next(event for event in events if isinstance(event, Saved) and event.step == 9)
    events.close()
    with (path / "forecasts.jsonl").open("a") as file:
        file.write('{"step": 10, "sec')
    end = list(timed(resume(path), changing).events())[-1]
    assert end.complete
    steps = [row["step"] for row in rows(path / "forecasts.jsonl")]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(("minutes", "spent"), [(0.6, 45), (0.9, 54), (2.4, 144)])
def test_a_budget_that_is_changed_counts_the_time_already_spent(pairs, tmp_path, minutes, spent):
    path = tmp_path / "run"
    events = timed(start(config(pairs), path), changing).events()
    next(event for event in events if isinstance(event, Saved) and event.step == 6)
    events.close()
    longer = timed(resume(path, overrides=[f"train.budget.minutes={minutes}"]), changing)
    assert list(longer.events())[-1].complete
    assert longer.progress.seconds == pytest.approx(spent, abs=3)


def test_a_finished_run_goes_on_from_its_spent_time_when_it_gets_more(whole, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(whole[0], path, symlinks=True)
    run = timed(resume(path, overrides=["train.budget.minutes=1.5"]), changing)
    rates = [event.lr for event in run.events() if hasattr(event, "lr")]
    assert run.progress.seconds == pytest.approx(90, abs=3)
    assert max(rates) < 0.3 * 1e-2, "the schedule is where the time is, not at its peak again"


def test_a_run_of_earlier_versions_keeps_the_steps_that_it_fixed(pairs, tmp_path):
    path = tmp_path / "run"
    events = timed(start(config(pairs), path), changing).events()
    next(event for event in events if isinstance(event, Saved) and event.step == 6)
    events.close()
    run = resume(path)
    run.progress.total, run.progress.forecast = 11, None
    assert list(timed(run, changing).events())[-1].step == 11


def test_a_step_during_which_the_process_was_stopped_counts_as_a_usual_one():
    with Stopwatch() as watch:
        watch.start()
        watch.wall -= 3600
        signal.raise_signal(signal.SIGCONT)
        assert watch.lap(usual=0.5).seconds == 0.5
        watch.start()
        watch.wall -= 3600
        assert watch.lap(usual=0.5).seconds > 3599, "slow is not stopped"
