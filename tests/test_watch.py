"""A run on the terminal: what fits where, and what can be pasted."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress

from dragoman.cli import watch
from dragoman.train.budget import Epochs, Minutes, Steps
from dragoman.train.events import Finished, Notice, Preparing, StepsReported, Validating
from dragoman.train.failure import resume_command
from dragoman.train.forecast import forecast
from dragoman.train.progress import RunProgress as Counts


def learned(**changes):
    usual = {
        "step": 8019,
        "total": 12019,
        "loss": 3.456,
        "lr": 1e-3,
        "grad_norm": 0.5,
        "tokens": 9,
        "padding": 0.1,
        "skipped": 0,
        "sources": {},
        "seconds": 100.0,
        "seconds_left": 487.0,
        "cpu_seconds": 150.0,
        "tokens_per_second": 43100.0,
        "utilisation": 0.3,
    }
    return StepsReported(**(usual | changes))


def drawn(monkeypatch, events, *, width=80, live=True):
    console = Console(file=io.StringIO(), width=width, force_terminal=live, color_system=None, highlight=False)
    progress = Progress(*watch.columns(), console=console, disable=not live, auto_refresh=False)
    screen = watch.TrainScreen(SimpleNamespace(directory=SimpleNamespace(path=Path("runs/x"))), progress)
    for event in events:
        screen.show(event)
    if live:
        with console.capture() as captured:
            console.print(progress.get_renderable())
        return captured.get()
    return console.file.getvalue()


def test_notices_are_shown_as_they_are(monkeypatch):
    text = "data[en]/c.tsv: [/x] left out"
    assert drawn(monkeypatch, [Notice(text), Preparing(text)], live=False) == f"{text}\n{text} ...\n"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"total": None, "seconds_left": None},
        {"step": 1_200_000, "total": 9_999_999, "seconds_left": 400_000.0},
        {"loss": None, "grad_norm": None, "skipped": 12},
        {"utilisation": None, "tokens_per_second": 3.0},
    ],
    ids=str,
)
def test_progress_fits_eighty_columns_on_one_line_and_says_what_is_done(monkeypatch, changes):
    lines = drawn(monkeypatch, [learned(**changes)]).rstrip("\n").split("\n")
    assert len(lines) == 1 and len(lines[0]) <= 80
    assert "training" in lines[0] and "\u2026" not in lines[0]
    (line,) = drawn(monkeypatch, [learned(**changes)], live=False).splitlines()
    assert line.startswith("training  step") and len(line) <= 80


def test_progress_says_how_long_it_will_take_before_anything_else_that_may_be_cut(monkeypatch):
    assert "8:07 left" in drawn(monkeypatch, [learned()]) and "43.1k tokens/s" in drawn(monkeypatch, [learned()])
    assert "gradient" in drawn(monkeypatch, [learned()], width=140)
    assert "8:07 left" in drawn(monkeypatch, [learned()], width=60)


def test_a_validation_is_shown_as_one(monkeypatch):
    assert "validating" in drawn(monkeypatch, [learned(), Validating(8019)])


@pytest.mark.parametrize("path", ["runs/x", "runs/two words", "it's", "a[bold]b", "$HOME/x"])
@pytest.mark.parametrize("complete", [True, False])
def test_a_command_stands_on_a_line_of_its_own_and_can_be_pasted(monkeypatch, path, complete):
    import shlex

    command = resume_command(Path(path))
    said = drawn(monkeypatch, [Finished(3, "stopped", complete, command)], live=False).splitlines()
    assert said[0].endswith(":") and shlex.split(said[1]) == ["dragoman", "train", path, "--resume"]


@pytest.mark.parametrize("budget", [Steps(steps=10), Epochs(epochs=2.5), Minutes(minutes=9.0)], ids=str)
def test_the_command_to_train_longer_names_a_whole_setting(budget):
    from dragoman.config import from_dict, override
    from dragoman.train.recipe import TrainConfig

    end = Finished.budget_spent(Counts(step=10, total=10), budget, resume_command(Path("runs/x")))
    setting = end.command.split()[-1].removeprefix("train.")
    kind = type(budget).__name__.lower()
    plain = {"budget": {"kind": kind, kind: getattr(budget, kind)}}
    longer = from_dict(TrainConfig, override(plain, setting)).budget
    assert type(longer) is type(budget) and getattr(longer, kind) == 2 * getattr(budget, kind)


@pytest.mark.parametrize(
    ("budget", "says", "setting"),
    [
        (Steps(steps=5), "16 steps are done, and the budget is 5", "train.budget.steps=32"),
        (Epochs(epochs=0.5), "all 16 steps are done", "train.budget.epochs=4"),
        (Minutes(minutes=0.001), "0:02 minutes of learning are spent, 16 steps", "train.budget.minutes=0.0666667"),
    ],
    ids=str,
)
def test_a_budget_that_was_spent_before_is_called_so_and_the_command_gives_more_than_is_spent(budget, says, setting):
    made = Counts(step=16, epochs=2.0, seconds=2.0)
    made.set_length(budget, 8)
    if budget.seconds:
        made.total, made.forecast = 16, forecast(budget.seconds, None, made.step, made.seconds)
    end = Finished.budget_spent(made, budget, "dragoman train x --resume")
    assert end.reason == says
    assert end.command == f"dragoman train x --resume {setting}"


def test_what_is_kept_is_said_last(monkeypatch):
    end = Finished(3, "all 3 steps are done", True, "dragoman train x --resume", "kept to use: step-000003; 1.0 MB")
    assert drawn(monkeypatch, [end], live=False).splitlines()[-1] == "Kept to use: step-000003; 1.0 MB"
