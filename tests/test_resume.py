"""A run that was stopped, however it was stopped, goes on as if nothing had happened: equal to the bit."""

import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_run
import tiny_tasks
from tiny_run import outcome, rows
from torch._subclasses import FakeTensor

from dragoman import durable, machine, migrations
from dragoman.checkpoint import RunDirectory, load_model
from dragoman.config import differences, merge, override, to_dict
from dragoman.data.tasks import TranslationTask
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError, ConfigError, DataError, UserError
from dragoman.presets import PRESETS
from dragoman.train import recipe
from dragoman.train.changes import changed
from dragoman.train.events import Finished, Notice, Saved, Started, StepsReported, Validated
from dragoman.train.loop import Diverged
from dragoman.train.recipe import load
from dragoman.train.run import resume, start


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pairs):
    """What the uninterrupted run has come to, and its events."""
    path = tmp_path_factory.mktemp("whole") / "run"
    events = list(start(tiny_run.config(pairs), path).events())
    return path, outcome(path), events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


def kinds(events, kind):
    return [event for event in events if isinstance(event, kind)]


def stop_after(run, count):
    """Drop the run dead after ``count`` events: no more is written."""
    events = run.events()
    for _ in range(count):
        next(events)
    events.close()


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # these tests stop processes, not machines


def begun(pairs, path, **train):
    """A run that was stopped after its first checkpoint."""
    events = start(tiny_run.config(pairs, **train), path).events()
    assert any(isinstance(event, Saved) for event in events)
    events.close()


# ---- going on -------------------------------------------------------------------------------------


def test_the_test_is_a_test(whole):
    """It stops in the middle of epochs, accumulates, averages, validates and saves at unlike times."""
    _, end, events = whole
    started = kinds(events, Started)[0]
    assert started.steps_per_epoch not in (3, 4, 6, 12) and 1 < started.steps_per_epoch < 12
    assert {name.split("/")[0] for name in end["tensors"]} == {"model", "optimizer", "average"}
    assert [event.step for event in kinds(events, Validated)] == [4, 8, 12]
    assert {3, 6, 9, 12} <= {event.step for event in kinds(events, Saved)}
    assert [event.step for event in kinds(events, StepsReported)] == [2, 4, 6, 8, 10, 12]


def test_a_run_is_a_function_of_its_configuration(whole, pairs, path):
    list(start(tiny_run.config(pairs), path).events())
    assert outcome(path) == whole[1]


def test_another_seed_is_another_run(whole, pairs, path):
    list(start(tiny_run.config(pairs, seed=2), path).events())
    assert outcome(path)["tensors"] != whole[1]["tensors"]


def test_stopped_after_any_event_and_resumed_equals_the_uninterrupted_run(whole, pairs, tmp_path):
    path, end, events = whole
    begin = next(i for i, event in enumerate(events) if isinstance(event, Started))
    for count in range(begin + 1, len(events), 3):
        path = tmp_path / f"stopped-{count}"
        stop_after(start(tiny_run.config(pairs), path), count)
        list(resume(path).events())
        assert outcome(path) == end, f"stopped after event {count}, {events[count - 1]}"


def test_what_a_resumed_run_translates_while_it_learns_is_what_it_would_have(pairs, tmp_path):
    list(start(tiny_run.config(pairs, samples=2), tmp_path / "whole").events())
    begun(pairs, tmp_path / "stopped", samples=2)
    list(resume(tmp_path / "stopped").events())
    end = outcome(tmp_path / "stopped")
    assert end == outcome(tmp_path / "whole")
    assert [len(row["samples"]) for row in end["samples"]] == [2, 2, 2]


def test_stopped_again_and_again(whole, pairs, path):
    begun(pairs, path)
    for _ in range(40):
        run = resume(path)
        events = run.events()
        seen = [event for event, _ in zip(events, range(5), strict=False)]
        events.close()
        if kinds(seen, Finished):
            break
    assert outcome(path) == whole[1]


def test_a_line_that_a_crash_cut_short_is_written_again(whole, pairs, path):
    stop_after(start(tiny_run.config(pairs), path), len(whole[2]) // 2)
    for name in ("metrics", "samples"):
        with (path / f"{name}.jsonl").open("a") as file:
            file.write('{"kind": "train", "ste')
    list(resume(path).events())
    assert outcome(path) == whole[1]


def test_from_an_earlier_checkpoint_the_run_comes_to_the_same_end(whole, pairs, path):
    list(start(tiny_run.config(pairs), path).events())
    list(resume(path, checkpoint="step-000006").events())
    assert outcome(path) == whole[1]
    assert (path / "checkpoints" / "step-000012.abandoned").is_dir()


def test_a_resume_that_is_refused_sets_no_checkpoint_aside(pairs, path):
    list(start(tiny_run.config(pairs), path).events())
    before = sorted(path.rglob("*"))
    for change in ("train.best_by=nothing", "train.device=nowhere", "model.dim=9"):
        with pytest.raises(UserError):
            resume(path, checkpoint="step-000006", overrides=[change, "train.on_memory=stop"], deliberate=True)
        assert sorted(path.rglob("*")) == before and (path / "last").resolve().name == "step-000012"


def test_a_finished_run_says_so_and_how_to_train_longer(whole, pairs, path):
    list(start(tiny_run.config(pairs), path).events())
    events = list(resume(path).events())
    assert [type(event) for event in events] == [Started, Finished]
    assert events[-1].complete and events[-1].command == f"dragoman train {path} --resume train.budget.steps=24"
    longer = list(resume(path, overrides=["train.budget.steps=14"]).events())
    assert longer[-1].step == 14
    assert "changed: train.budget.steps from 12 to 14" in [event.text for event in kinds(longer, Notice)]


# ---- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_finishes_the_step_saves_and_tells_how_to_go_on(whole, pairs, path, number):
    before = signal.getsignal(number)
    for event in start(tiny_run.config(pairs), path).events():
        if isinstance(event, StepsReported) and event.step == 10:
            signal.raise_signal(number)
    assert isinstance(event, Finished) and not event.complete
    assert event.step == 10 and number.name in event.reason and event.command == f"dragoman train {path} --resume"
    assert RunDirectory.open(path).find("last").step == 10
    assert signal.getsignal(number) == before
    list(resume(path).events())
    assert outcome(path) == whole[1]


def test_a_signal_in_the_middle_of_a_validation_leaves_that_to_the_resumed_run(whole, pairs, path, monkeypatch):
    ask = TranslationTask.nll

    def interrupted(self, model, batch):
        signal.raise_signal(signal.SIGINT)
        return ask(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TranslationTask, "nll", interrupted)
        events = list(start(tiny_run.config(pairs), path).events())
    assert events[-1].step == 4 and not kinds(events, Validated)
    list(resume(path).events())
    assert outcome(path) == whole[1]


SLOW = """
import sys, time, tiny_run
from pathlib import Path
from dragoman.train import loop, run
quick = loop._account
loop._account = lambda *given: (time.sleep(600 if given[1].step == 5 else 0), quick(*given))[1]
for event in run.start(tiny_run.config(Path(sys.argv[1])), sys.argv[2]).events():
    print(type(event).__name__, flush=True)
"""


@pytest.mark.parametrize("before", ["default", "ignored"])
def test_the_second_ctrl_c_leaves_at_once_and_the_run_can_be_resumed(before, pairs, path):
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" if before == "ignored" else ""
    command = [sys.executable, "-c", ignoring + SLOW, str(pairs), str(path)]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert any(line == "Validated\n" for line in process.stdout), "at step 4"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the first one waits for the step"
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) != 0
        finally:
            process.kill()
    assert RunDirectory.open(path).find("last").step == 4
    assert isinstance(next(iter(resume(path).events())), Started)


# ---- changes --------------------------------------------------------------------------------------


def test_a_resume_whose_configuration_differs_shows_every_difference(pairs, path):
    begun(pairs, path)
    other = tiny_run.config(pairs, seed=2, batch_tokens=500)
    with pytest.raises(CheckpointError) as refused:
        resume(path, cfg=other)
    assert "train.batch_tokens was 400, is now 500; train.seed was 1, is now 2" in str(refused.value)
    with pytest.raises(CheckpointError, match=r"model\.dim was 8, is now 16: restore it, start a new run$"):
        resume(path, overrides=["model.dim=16"], deliberate=True)


def test_the_same_run_file_goes_on_whatever_it_left_open(whole, pairs, path):
    begun(pairs, path)
    list(resume(path, cfg=tiny_run.config(pairs, precision="auto")).events())
    assert outcome(path) == whole[1]


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_that_a_preset_leaves_open_may_stay_open_in_its_run_file(name):
    cfg = load({"preset": name, "data": {"train": [{"kind": "table", "path": "pairs.tsv"}]}})
    sized = cfg.model.sized(**dict.fromkeys(inspect.signature(cfg.model.sized).parameters, 987))
    had = wanted = to_dict(cfg)
    for path, before, now in differences(had, had | {"model": to_dict(sized)}):
        had = override(had, f"{path}={now}") if before is None else had
    resumed, changes = changed(had, wanted, deliberate=False, where="run")
    assert not changes and to_dict(resumed) == had


def open_run_files(folder):
    """Run files of every task that leave open whatever a run decides by itself."""
    files = tiny_tasks.run_files(folder)
    files["two vocabularies"] = files["translation"] | {
        "target_tokenizer": "bytes",
        "model": files["translation"]["model"] | {"tying": "target"},
    }
    towers = {"kind": "two_towers", "first": tiny_tasks.SENTENCE, "second": tiny_tasks.SENTENCE}
    files["two towers"] = files["contrastive"] | {"model": towers}
    open_train = {"schedule": {"kind": "noam"}, "precision": "auto", "products": "auto"}
    return {task: given | {"train": given["train"] | open_train} for task, given in files.items()}


@pytest.mark.parametrize("task", open_run_files(Path()))
def test_a_run_of_every_task_is_resumed_by_its_run_file(tmp_path, path, task, monkeypatch):
    monkeypatch.setattr(recipe, "choose_precision", lambda *_: "float32")  # what is measured is tested elsewhere
    monkeypatch.setattr(recipe, "choose_products", lambda *_: "torch")
    tiny_tasks.write_texts(tmp_path)
    cfg = load(open_run_files(tmp_path)[task])
    events = start(cfg, path).events()
    next(event for event in events if isinstance(event, Started))
    events.close()
    decided = {change[0] for change in differences(RunDirectory.open(path).config, to_dict(cfg))}
    assert decided >= {"train.precision", "train.products", "train.schedule.dim"}
    resumed = resume(path, cfg=cfg)
    assert not resumed.changes
    resumed.directory.close()


def test_who_multiplies_is_decided_once_whatever_a_resumed_run_would_measure(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "product_seconds", lambda: {"torch": 2.0, "onednn": 1.0})
    list(start(tiny_run.config(pairs, products="auto"), tmp_path / "whole").events())
    begun(pairs, tmp_path / "stopped", products="auto")
    assert RunDirectory.open(tmp_path / "stopped").config["train"]["products"] == "onednn"
    monkeypatch.setattr(machine, "product_seconds", lambda: {"torch": 1.0, "onednn": 2.0})
    list(resume(tmp_path / "stopped", cfg=tiny_run.config(pairs, products="auto")).events())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_a_run_of_before_goes_on_multiplying_as_it_did(pairs, path):
    begun(pairs, path)
    old = migrations.Content(config=RunDirectory.open(path).config, progress={}, tensors={})
    del old.config["train"]["products"]
    had = migrations.migrate(old, 1, "here").config
    assert changed(had, old.config, deliberate=False, where="here")[0].train.products == "torch"


def test_a_setting_that_its_version_did_not_know_has_its_default(pairs, path):
    plain = to_dict(tiny_run.config(pairs))
    older = {**plain, "train": {k: v for k, v in plain["train"].items() if k != "patience"}}
    assert changed(older, plain, deliberate=False, where="here") == (tiny_run.config(pairs), [])


@pytest.mark.parametrize("samples", [0, 1, 4])
def test_what_changes_no_weight_may_change(whole, pairs, path, samples):
    begun(pairs, path, validate_every=2, samples=2)
    assert [len(row["samples"]) for row in rows(path / "samples.jsonl")] == [2]
    changes = ["train.save_every=5", "train.keep.last=1", "train.validate_every=4", f"train.samples={samples}"]
    list(resume(path, overrides=changes).events())
    assert len(rows(path / "samples.jsonl")[-1]["samples"]) == samples
    assert outcome(path)["tensors"] == whole[1]["tensors"]


def test_a_deliberate_change_is_made_and_recorded(whole, pairs, path):
    begun(pairs, path)
    change = ["train.schedule.peak=0.001"]
    with pytest.raises(CheckpointError, match="--deliberate"):
        resume(path, overrides=change)
    list(resume(path, overrides=change, deliberate=True).events())
    assert [row["to"] for row in rows(path / "metrics.jsonl") if row["kind"] == "change"] == [0.001]
    assert outcome(path)["tensors"] != whole[1]["tensors"]


@pytest.mark.parametrize("now", ["adam", "adam_w", "muon", "adafactor"])
@pytest.mark.parametrize("before", ["adam", "muon", "adafactor"])
def test_another_optimizer_takes_over_the_state_that_it_knows_and_says_what_begins_anew(pairs, path, before, now):
    begun(pairs, path, optimizer={"kind": before})
    said = list(resume(path, overrides=[f"train.optimizer={now}"], deliberate=True).events())
    told = [event.text for event in said if "begins without memory" in getattr(event, "text", "")]
    same = before == now or {before, now} == {"adam", "adam_w"}
    assert said[-1].complete and len(told) == (not same)
    weights = len(RunDirectory.open(path).load("last").tensors["model"])
    if {before, now} <= {"adam", "adam_w", "muon"} and not same:  # Muon leaves norms and embeddings to AdamW
        assert 0 < int(told[0].split()[-2]) < weights


def test_a_hand_edited_configuration_is_noticed(pairs, path):
    begun(pairs, path)
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("clip: 1.0", "clip: 2.0"))
    with pytest.raises(CheckpointError, match=r"train\.clip was 1\.0, is now 2\.0"):
        resume(path)


# ---- ends -----------------------------------------------------------------------------------------


def test_patience_stops_a_run_that_no_longer_improves(pairs, path):
    still = {"kind": "constant", "peak": 1e-12}
    events = list(start(tiny_run.config(pairs, schedule=still, patience=1, average=None), path).events())
    assert isinstance(events[-1], Finished) and events[-1].complete and events[-1].step <= 12
    assert "no better validation" in events[-1].reason or events[-1].step == 12


def test_epochs_are_turned_into_steps(pairs, path):
    events = list(start(tiny_run.config(pairs, budget={"kind": "epochs", "epochs": 1.5}), path).events())
    started = kinds(events, Started)[0]
    assert events[-1].step == started.total == -(-3 * started.steps_per_epoch // 2)


@pytest.mark.parametrize(
    "changes",
    [["train.accumulate=1"], ["train.batch_tokens=200"], ["train.batch_tokens=900", "train.budget.epochs=3"]],
    ids=str,
)
def test_passes_over_the_text_are_kept_whatever_the_size_of_batches_becomes(pairs, path, changes):
    begun(pairs, path, budget={"kind": "epochs", "epochs": 2})
    made = RunDirectory.open(path).load("last").progress["step"]
    events = list(resume(path, overrides=[], deliberate=True).events())
    before = kinds(events, Started)[0]
    assert events[-1].step == 2 * before.steps_per_epoch and 0 < made < events[-1].step
    wanted = 3 if "train.budget.epochs=3" in changes else 2
    first = f"step-{made:06d}"
    events = list(resume(path, checkpoint=first, overrides=changes, deliberate=True).events())
    now = kinds(events, Started)[0]
    assert now.steps_per_epoch != before.steps_per_epoch
    left = (wanted - made / before.steps_per_epoch) * now.steps_per_epoch
    assert events[-1].step == now.total and now.total - made - left == pytest.approx(0.5, abs=0.5)
    again = list(resume(path, overrides=["train.accumulate=3"], deliberate=True).events())
    assert again[-1].step == now.total  # nothing is left of the budget


def resumed_at_its_first_step(path, overrides):
    run = resume(path, overrides=overrides, deliberate=True)
    events = run.events()
    assert any(isinstance(event, Started) for event in events)
    return run, events


def test_schedule_mixture_and_order_go_on_from_what_is_spent_when_the_size_of_batches_changes(pairs, path, tmp_path):
    cfg = to_dict(tiny_run.config(pairs, budget={"kind": "epochs", "epochs": 4}))
    lines, files = pairs.read_text().splitlines(keepends=True), [tmp_path / "first.tsv", tmp_path / "second.tsv"]
    for file, some in zip(files, (lines[::2], lines[1::2]), strict=True):
        file.write_text("".join(some))
    cfg["data"]["train"] = [{"kind": "table", "path": str(file)} for file in files]
    weights = [{"first": 1, "second": 0}, {"first": 0, "second": 1}]
    stages = [{"begins": begins, "weights": some} for begins, some in zip((0, 0.6), weights, strict=True)]
    cfg["data"] |= {"mixture": {"kind": "stages", "stages": stages}, "order": {"kind": "easy_first", "until": 1.0}}
    events = start(tiny_run.recipe.load(cfg), path).events()
    whole = next(event for event in events if isinstance(event, Started)).total
    assert any(isinstance(event, Saved) and event.step > 0.4 * whole for event in events)
    events.close()
    progress = RunDirectory.open(path).load("last").progress
    made, spent = progress["step"], progress["step"] / whole
    assert 0.4 < spent < 0.6, "before the second stage"
    run, events = resumed_at_its_first_step(path, ["train.batch_tokens=1600"])
    total, plan, schedule = run.progress.total, run.plan.plan, run.cfg.train.schedule
    assert total < whole and made / total > 0.6, "by the number of steps it would be past the first stage"
    assert run.progress.spent(made) == pytest.approx(spent, abs=0.02)
    assert list(plan.shares(made)) == [1, 0] and list(plan.shares(total - 1)) == [0, 1]
    assert plan.available(made) == pytest.approx(spent**0.5, abs=0.02)
    before, after = schedule.rate(made, whole), schedule.rate(made + 1, run.progress.horizon(made + 1))
    assert 0.6 * before < after < before
    assert schedule.rate(total, run.progress.horizon(total)) == 0
    events.close()
    list(resume(path, overrides=["train.batch_tokens=1600"], deliberate=True).events())
    once = outcome(path)
    resumed = list(resume(path, checkpoint=RunDirectory.open(path).checkpoints()[-2].path.name).events())
    assert resumed[-1].step == total
    again = outcome(path)
    assert (again["tensors"], again["progress"]) == (once["tensors"], once["progress"]), "to the bit"


@pytest.mark.parametrize("kind", ["cosine", "warmup_stable_decay", "constant", "inverse_square_root", "noam"])
@pytest.mark.parametrize(("warmup", "told"), [(11, 0), (12, 1), (4000, 1)])
def test_a_warm_up_that_is_longer_than_the_run_is_said_once(pairs, path, kind, warmup, told):
    schedule = {"kind": kind, "warmup": warmup} | ({} if kind == "noam" else {"peak": 1e-3})
    said = list(start(tiny_run.config(pairs, schedule=schedule), path).events())
    assert len([event for event in kinds(said, Notice) if "train.schedule.warmup" in event.text]) == told


def test_a_warm_up_longer_than_a_budget_of_minutes_is_said_once_the_speed_is_known(pairs, path):
    schedule = {"kind": "cosine", "peak": 1e-3, "warmup": 10**9}
    said = list(
        start(tiny_run.config(pairs, schedule=schedule, budget={"kind": "minutes", "minutes": 0.02}), path).events()
    )
    assert len([event for event in kinds(said, Notice) if "train.schedule.warmup" in event.text]) == 1


def test_only_so_many_checkpoints_are_kept_and_the_best_among_them(pairs, path):
    list(start(tiny_run.config(pairs, keep={"last": 1, "every": 6}), path).events())
    run = RunDirectory.open(path)
    assert {c.step for c in run.checkpoints()} == {6, 12, run.find("best").step}


def test_without_a_validation_set_the_last_checkpoint_is_the_best(pairs, path):
    cfg = to_dict(tiny_run.config(pairs))
    cfg["data"]["hold_out"]["valid"] = 0
    events = list(start(tiny_run.recipe.load(cfg), path).events())
    assert not kinds(events, Validated) and events[-1].step == 12
    assert RunDirectory.open(path).find("best").step == 12
    assert (path / "report.html").exists()


@pytest.mark.parametrize("setting", ["patience=3", "best_by=loss", "scored=5"])
def test_without_a_validation_set_what_needs_one_is_refused(pairs, path, setting):
    cfg = to_dict(tiny_run.config(pairs))
    cfg["data"]["hold_out"] |= {"valid": 0}
    says = rf"^train\.{setting.partition('=')[0]}: .* needs validation examples, .* data\.valid"
    with pytest.raises(ConfigError, match=says):
        start(tiny_run.recipe.load(cfg, [f"train.{setting}"]), path)
    assert not path.exists()
    begun_without = tiny_run.recipe.load(cfg)
    list(start(begun_without, path).events())
    with pytest.raises(ConfigError, match=says):
        resume(path, overrides=[f"train.{setting}"], deliberate=True)


def test_validation_examples_that_are_all_too_long_are_none(pairs, path, tmp_path):
    long = tmp_path / "long.tsv"
    long.write_text("".join(f"{'word ' * 90}{n}\t{'word ' * 90}{n}\n" for n in range(3)))
    cfg = merge(to_dict(tiny_run.config(pairs, patience=2)), {"data": {"valid": {"kind": "table", "path": str(long)}}})
    cfg = merge(cfg, {"model": {"position": {"kind": "learned", "length": 64}}})
    with pytest.raises(ConfigError, match=r"^train\.patience: 2 needs validation examples"):
        list(start(tiny_run.recipe.load(cfg), path).events())


def test_an_average_that_begins_in_the_middle_begins_with_the_weights_there(pairs, path):
    list(start(tiny_run.config(pairs, average=None), path).events())
    more = ["train.average=0.999", "train.budget.steps=13"]
    list(resume(path, overrides=more, deliberate=True).events())
    tensors = RunDirectory.open(path).load("last").tensors
    assert all((tensors["model"][name] - mean).abs().max() < 0.02 for name, mean in tensors["average"].items())


# ---- failures -------------------------------------------------------------------------------------


def test_sizes_that_do_not_fit_are_refused_before_anything_is_written(pairs, path):
    cfg = tiny_run.config(pairs)
    broken = tiny_run.recipe.load(
        tiny_run.merge(to_dict(cfg), {"model": {"dim": 10, "decoder": {"pattern": [tiny_run.BLOCK]}}})
    )
    with pytest.raises(ConfigError, match=r"model\.decoder\.pattern\.0\.cross"):
        start(broken, path)
    assert not path.exists()


def test_a_run_that_fails_while_preparing_leaves_nothing_behind(tmp_path, path):
    (tmp_path / "bad.tsv").write_text("no tab here\n")
    with pytest.raises(DataError, match=r"bad\.tsv:1"):
        list(start(tiny_run.config(tmp_path / "bad.tsv"), path).events())
    assert not path.exists()


def test_an_existing_run_is_not_started_over(pairs, path):
    begun(pairs, path)
    with pytest.raises(CheckpointError, match="--resume"):
        start(tiny_run.config(pairs), path)


def test_a_run_that_diverges_names_the_checkpoint_to_go_back_to(pairs, path, monkeypatch):
    ask = TranslationTask.loss
    calls = []

    def poisoned(self, model, batch):
        summed, count = ask(self, model, batch)
        if not isinstance(summed, FakeTensor):  # there the operations of a step are counted
            calls.append(batch)
        return summed * (float("nan") if len(calls) > 14 else 1), count

    monkeypatch.setattr(TranslationTask, "loss", poisoned)
    events = []
    with pytest.raises(Diverged, match=r"for 3 steps in a row.*step-000009 is good.*--resume --deliberate"):
        events.extend(start(tiny_run.config(pairs, give_up_after=3), path).events())
    assert RunDirectory.open(path).find("last").step == 9


def test_a_full_disk_stops_the_run_and_a_resumed_one_is_the_same(whole, pairs, path, monkeypatch):
    write = durable.write

    def full(file, content):
        if file.name == "optimizer.safetensors" and "step-000006" in str(file):
            raise OSError(28, "No space left on device")
        write(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        with pytest.raises(CheckpointError, match=r"step-000006: cannot save: No space left on device.*--resume"):
            list(start(tiny_run.config(pairs), path).events())
    list(resume(path).events())
    assert outcome(path) == whole[1]


def test_a_disk_that_is_full_before_the_first_step_is_reported_by_name(pairs, path, monkeypatch):
    def full(file, content):
        raise OSError(28, "No space left on device", str(file))

    run = start(tiny_run.config(pairs), path)
    monkeypatch.setattr(durable, "write", full)
    with pytest.raises((CheckpointError, DataError), match=r"No space left on device"):
        list(run.events())


def test_a_vocabulary_larger_than_the_text_yields_becomes_what_it_yields_and_is_said(pairs, path):
    cfg = tiny_run.recipe.load(to_dict(tiny_run.config(pairs)) | {"tokenizer": {"kind": "words", "vocab": 9999}})
    told = [event.text for event in start(cfg, path).events() if isinstance(event, Notice)]
    assert any(f"tokenizer.vocab={len(RunDirectory.open(path).tokenizers()[0])}" in text for text in told)


def test_a_validation_loss_that_is_no_number_stops_the_run(pairs, path, monkeypatch):
    ask = TranslationTask.nll
    monkeypatch.setattr(TranslationTask, "nll", lambda *given: (ask(*given)[0] * float("nan"), ask(*given)[1]))
    with pytest.raises(Diverged, match=r"validation loss is nan.*step-000003 is good"):
        list(start(tiny_run.config(pairs), path).events())


# ---- using it -------------------------------------------------------------------------------------


def test_the_loaded_model_has_the_averaged_weights(whole):
    path, end, _ = whole
    model, source, target = load_model(path, "last")
    for name, value in model.state_dict().items():
        if f"average/{name}" in end["tensors"]:
            assert value.tolist() == end["tensors"][f"average/{name}"]
    assert not model.training and source is target
    assert load_model(path / "last")[0].state_dict().keys() == model.state_dict().keys()


def test_the_run_can_be_translated_with(whole):
    assert len(Translator.load(whole[0]).translate(["the red house", ""])) == 2
