"""Planning before the first step: what a run will need is said and refused, and changes no bit of the run."""

import json
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import tiny_run
import torch

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.cli.plan_reconcile import show_reconciliation
from dragoman.cli.prediction import three_lines
from dragoman.config import from_dict, to_dict
from dragoman.errors import CheckpointError
from dragoman.plan.measured import MEASURED, measured, note
from dragoman.plan.reconcile import PREDICTION, reconcile
from dragoman.train import planner, prediction
from dragoman.train.budget import Epochs, Minutes, Steps
from dragoman.train.distributed.micro_batch import split_between_processes
from dragoman.train.events import Predicted, Started
from dragoman.train.memory import OutOfMemory
from dragoman.train.planner import Planner
from dragoman.train.prediction import RunCounter, predict_run
from dragoman.train.recipe import RunConfig
from dragoman.train.run import resume, start
from dragoman.train.tasks import task_data_for


@pytest.fixture(autouse=True)
def predicted_anew(monkeypatch):
    """Predict each run by itself, although others are alike: tests here say how much memory is free."""
    monkeypatch.setattr(planner, "predict_run", predict_run)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.tsv")


@pytest.fixture(scope="module")
def planned(pairs, tmp_path_factory):
    """A run that was planned, with its events."""
    run = start(tiny_run.config(pairs), tmp_path_factory.mktemp("planned") / "run")
    run.planner = Planner()
    return run.directory.path, list(run.events())


@pytest.fixture
def counter(planned):
    path, _ = planned
    directory = RunDirectory.open(path)
    cfg = from_dict(RunConfig, directory.config)
    data = task_data_for(cfg).open(cfg, directory)
    return RunCounter(cfg, data, data.plan(cfg), torch.device("cpu"))


def predicted_of(events) -> Predicted:
    (found,) = [event for event in events if isinstance(event, Predicted)]
    return found


def test_a_run_with_a_prediction_and_one_without_are_equal_to_the_bit(pairs, planned, tmp_path):
    plain = start(tiny_run.config(pairs), tmp_path / "plain")
    list(plain.events())
    assert tiny_run.outcome(plain.directory.path) == tiny_run.outcome(planned[0])
    assert not (plain.directory.path / PREDICTION).exists()


def test_predicting_leaves_the_generator_of_random_numbers_as_it_was(counter):
    state = torch.random.get_rng_state()
    predict_run(counter.cfg, counter.task_data, counter.plan, torch.device("cpu"))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_prediction_comes_before_the_run_starts_and_is_in_its_directory(planned):
    path, events = planned
    kinds = [type(event) for event in events]
    assert kinds.index(Predicted) < kinds.index(Started)
    written = json.loads((path / PREDICTION).read_text())
    found = predicted_of(events).prediction
    assert written["memory"] == found.memory == sum(found.parts.values())
    assert found.steps == 12 and found.cpu_seconds > 0
    assert sum(found.shares.values()) == pytest.approx(1)


def test_the_parameters_and_tokens_are_those_of_the_run(planned):
    _, events = planned
    (started,) = [event for event in events if isinstance(event, Started)]
    found = predicted_of(events).prediction
    assert found.parameters == pytest.approx(started.parameters, rel=0.02)  # and sinusoids, which are stored
    assert found.epochs == pytest.approx(12 / started.steps_per_epoch)


def test_three_lines_say_memory_time_and_what_limits(planned):
    found = predicted_of(planned[1]).prediction
    memory, time, limit = three_lines(found, Steps(steps=12), "")
    assert memory.startswith("predicted memory: ") and "free" in memory
    assert time.startswith("predicted time: ") and "12 steps" in time and "epochs" in time
    assert limit.startswith("limited by ") or "limited by " in limit
    assert "in 3 minutes" in three_lines(found, Minutes(minutes=3), "short")[1]
    assert three_lines(found, Epochs(epochs=2), "it is short")[2].endswith("it is short")


def test_the_prediction_of_a_resumed_run_says_what_is_left(planned, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(planned[0], path, symlinks=True)
    run = resume(path, overrides=["train.budget.steps=20"])
    run.planner = Planner()
    events = run.events()
    found = next(event for event in events if isinstance(event, Predicted)).prediction
    events.close()
    assert (found.made, found.left, found.steps) == (12, 8, 20)
    assert found.seconds == pytest.approx(8 * found.step_seconds)
    per_epoch = next(event for event in planned[1] if isinstance(event, Started)).steps_per_epoch
    assert found.epochs == pytest.approx(20 / per_epoch), "in all"
    assert ": 8 steps are left; in all 20 steps, " in three_lines(found, Steps(steps=20), "")[1]


def test_a_command_prints_the_three_lines_and_force_is_an_option(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(json.dumps(to_dict(tiny_run.config(pairs, samples=0))))
    assert main(["train", "run.yaml", "--run", "run"]) == 0
    out = capsys.readouterr().out
    assert out.count("predicted memory") == out.count("predicted time") == out.count("limited by") == 1
    monkeypatch.setattr(prediction, "available_on", lambda device: 1000)
    assert main(["train", "run.yaml", "--run", "refused"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "this run needs" in error and "1000" not in error
    assert "--force" in error
    assert main(["train", "run.yaml", "--run", "forced", "--force"]) == 0
    assert "memory will not suffice" in capsys.readouterr().out
    assert main(["train", "refused", "--resume", "--force"]) == 0  # nothing was lost


def test_the_refusal_names_the_nearest_setting_that_fits_and_it_does(counter, planned):
    found, _ = predict_run(counter.cfg, counter.task_data, counter.plan, torch.device("cpu"))
    activations = found.parts["activations"] + found.parts["logits"]
    tight = type(found)(**{**found.__dict__, "available": found.memory - activations // 4})
    fitting = counter.nearest_fit(tight)
    assert fitting.nearest is not None and fitting.memory <= tight.available
    text = planner.refusal(tight, counter, RunDirectory.open(planned[0]), counter_group())
    assert fitting.nearest.settings(fitting.wanted) in text and "\n" not in text


def counter_group():
    from dragoman.train.distributed.processes import SINGLE_PROCESS

    return SINGLE_PROCESS


def test_a_run_that_cannot_fit_raises_before_a_step_and_keeps_its_text(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "available_on", lambda device: 1)
    run = start(tiny_run.config(pairs), tmp_path / "run")
    run.planner = Planner()
    with pytest.raises(OutOfMemory, match="no smaller batch fits"):
        list(run.events())
    assert (tmp_path / "run" / "data").is_dir()


def test_more_tokens_in_a_batch_need_more_memory(counter):
    sizes = []
    for tokens in (50, 200, 800):
        cfg = from_dict(
            RunConfig, to_dict(counter.cfg) | {"train": to_dict(counter.cfg.train) | {"batch_tokens": tokens}}
        )
        plan = counter.task_data.plan(cfg)
        found = RunCounter(cfg, counter.task_data, plan, torch.device("cpu"))
        sizes.append(found.memory(found.count(found.sample.largest)).total)
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


@pytest.mark.parametrize(("accumulate", "passes"), [(1, 1), (2, 1), (3, 2)])
def test_of_several_processes_the_part_of_one_is_counted(counter, accumulate, passes):
    changed = {"train": to_dict(counter.cfg.train) | {"accumulate": accumulate}}
    cfg = from_dict(RunConfig, to_dict(counter.cfg) | changed)
    given = cfg, counter.task_data, counter.task_data.plan(cfg), torch.device("cpu")
    one, two = RunCounter(*given), RunCounter(*given, 2)
    assert (one.sample.passes, two.sample.passes) == (accumulate, passes)
    assert two.sample.real == one.sample.real, "tokens of a step are those of all processes"
    for step in range(two.sample.steps):
        parts = split_between_processes(two.plan.at(step), 2)
        cells = [sum(two.task_data.size(part.batch)[1] for part in some) for some in parts]
        assert sum(two.sample.cells[step * passes : (step + 1) * passes]) == max(cells), "all wait for the slowest"


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_the_advice_to_several_processes_fits_when_it_is_counted_anew(counter, accumulate):
    def counted(**changes):
        train = to_dict(counter.cfg.train) | {"batch_tokens": 2048, "accumulate": accumulate} | changes
        cfg = from_dict(RunConfig, to_dict(counter.cfg) | {"train": train})
        found = RunCounter(cfg, counter.task_data, counter.task_data.plan(cfg), torch.device("cpu"), 2)
        return found, found.memory(found.count(found.sample.largest))

    two, held = counted()
    tight = held.total - (held.activations + held.logits) // 4
    prediction = SimpleNamespace(memory=held.total, parts=asdict(held), available=tight)
    advised = two.nearest_fit(prediction).nearest
    assert advised is not None
    again = counted(batch_tokens=advised.batch_tokens, accumulate=advised.accumulate, recompute=advised.recompute)[1]
    assert again.total <= 1.1 * tight


def test_processes_of_one_machine_share_its_memory(counter, planned, monkeypatch):
    monkeypatch.setattr(prediction, "available_on", lambda device: 10**9)
    given = counter.cfg, counter.task_data, counter.plan, torch.device("cpu"), 4, None
    there, counted = predict_run(*given, 2)
    assert there.available == 10**9 // 2
    group = SimpleNamespace(count=4, option=" --processes 4")
    text = planner.refusal(there, counted, RunDirectory.open(planned[0]), group)
    assert "of memory for each of 4 processes, " in text and "are free for each of 4 processes" in text


# ---- reconciled -------------------------------------------------------------------------------------


def test_a_run_is_reconciled_with_its_prediction(planned, capsys):
    path, _ = planned
    rows = {row.name: row for row in reconcile(path)}
    assert rows["steps"].predicted == rows["steps"].measured == 12
    assert all(row.ratio is not None for name, row in rows.items() if "decoding" not in name)
    show_reconciliation(path)
    shown = capsys.readouterr().out
    assert "peak memory in training" in shown and "Nothing was predicted" not in shown
    show_reconciliation(path, as_json=True)
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(rows)


def test_a_run_without_any_figure_is_refused_by_name(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match="nothing to reconcile"):
        reconcile(tmp_path / "run")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"training": ', "\0"])
def test_damaged_notes_are_as_good_as_none_and_are_replaced(tmp_path, content):
    (tmp_path / MEASURED).write_text(content)
    (tmp_path / PREDICTION).write_text(content)
    assert measured(tmp_path) == {}
    note(tmp_path, "training", {"memory": 5})
    note(tmp_path, "decoding", {"memory": 6})
    note(tmp_path, "serving", {"memory": 7})
    assert measured(tmp_path) == {"training": {"memory": 5}, "decoding": {"memory": 6}, "serving": {"memory": 7}}
    found = {row.name: row.measured for row in reconcile(tmp_path)}
    assert found["peak memory in decoding"] == 6 and found["peak memory in serving"] == 7
