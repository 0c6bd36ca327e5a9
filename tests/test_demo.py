"""What the demo says when its scores are below what is expected."""

import shlex
from pathlib import Path

import pytest

from dragoman.cli import demo
from dragoman.config import to_dict
from dragoman.train.recipe import load


def said(**changes):
    progress = {"step": 4000, "tokens": 4_000_000, "seconds": 540.0, "cpu_seconds": 594.0} | changes
    return demo.training_summary(progress, {"kind": "minutes", "minutes": 9}, 8_000_000, Path("runs/my demo"))


def test_it_says_how_much_was_learned_of_how_much_and_on_how_many_cores(monkeypatch):
    monkeypatch.setattr(demo, "_cores", lambda: 2)
    lines = said()
    assert lines[0] == "learned: 4,000 steps, 4.0M tokens of the 8M expected, in 9:00 minutes"
    assert lines[1] == "used: 1.1 cores on average, of 2 that this process may use"


@pytest.mark.parametrize(("tokens", "minutes"), [(4_000_000, 18), (7_900_000, 10), (1_000_000, 72)])
def test_it_proposes_as_many_minutes_as_the_missing_tokens_take(tokens, minutes):
    command = shlex.split(said(tokens=tokens)[-1])
    assert command == ["dragoman", "train", "runs/my demo", "--resume", f"train.budget.minutes={minutes}"]


def test_it_does_not_blame_the_time_where_that_sufficed():
    lines = said(tokens=9_000_000)
    assert "time was sufficient" in lines[-1] and not any("--resume" in line for line in lines)


def test_a_run_of_before_that_counted_no_processor_time_is_told_without():
    assert not any("cores" in line for line in said(cpu_seconds=0.0))


def test_the_recipe_learns_as_long_as_the_expectation_is_for():
    recipe = Path(demo.__file__).parent.parent / "recipes" / "home-assistant.yaml"
    assert to_dict(load(recipe))["train"]["budget"] == {"kind": "minutes", "minutes": demo.MINUTES}
