"""What a finished run keeps: enough to be resumed and used, and no more; whatever moment it is killed in."""

import hashlib
import os
import shutil

import pytest
import tiny_run
from tiny_run import outcome

from dragoman import durable
from dragoman.checkpoint import RunDirectory, load_model
from dragoman.errors import CheckpointError
from dragoman.migrations import FORMAT
from dragoman.snapshot import Checkpoint, Damaged
from dragoman.train.events import Saved
from dragoman.train.finished import drop_optimizer_states
from dragoman.train.run import resume, start


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


@pytest.fixture(scope="module")
def whole(pairs, tmp_path_factory):
    """A run that has kept every optimizer state."""
    path = tmp_path_factory.mktemp("whole") / "run"
    finished(pairs, path, optimizer_states=100)
    return path


@pytest.fixture
def path(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def finished(pairs, path, **keep):
    return list(start(tiny_run.config(pairs, keep={"last": 100} | keep), path).events())


def states(path):
    return [c.step for c in RunDirectory(path).checkpoints() if (c.path / "optimizer.safetensors").exists()]


def test_a_finished_run_keeps_one_optimizer_state_and_all_weights(pairs, tmp_path):
    path = tmp_path / "run"
    end = finished(pairs, path)[-1]
    assert states(path) == [12]
    for checkpoint in RunDirectory(path).checkpoints():
        checkpoint.verify()
        load_model(path, checkpoint.step)
    assert "kept to use and to resume: step-000012; to use, without the optimizer's state: step-000003" in end.kept
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    assert float(end.kept.split("; ")[-1].split(" MB")[0]) == pytest.approx(size / 1e6, abs=0.06)


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_so_many_optimizer_states_are_kept_as_are_asked_for(path, count):
    drop_optimizer_states(RunDirectory(path), keep=count)
    assert states(path) == [c.step for c in RunDirectory(path).checkpoints()][-count:]


def test_while_a_run_goes_on_every_checkpoint_can_be_resumed(pairs, tmp_path):
    events = start(tiny_run.config(pairs, keep={"last": 100}), tmp_path / "run").events()
    next(event for event in events if isinstance(event, Saved) and event.step == 9)
    events.close()
    assert states(tmp_path / "run") == [c.step for c in RunDirectory(tmp_path / "run").checkpoints()]


def test_a_finished_run_goes_on_as_one_that_kept_everything(whole, path, tmp_path):
    shutil.copytree(whole, tmp_path / "all", symlinks=True)
    drop_optimizer_states(RunDirectory(path), keep=1)
    for run in (path, tmp_path / "all"):
        list(resume(run, overrides=["train.budget.steps=17"]).events())
    assert outcome(path) == outcome(tmp_path / "all")


def test_going_on_from_weights_alone_is_refused_and_nothing_is_set_aside(path):
    drop_optimizer_states(RunDirectory(path), keep=1)
    before = sorted(p.name for p in (path / "checkpoints").iterdir())
    newest = RunDirectory(path).checkpoints()[-1].path.name
    says = rf"step-000006 holds weights alone: resume from {newest} .*train\.keep\.optimizer_states"
    with pytest.raises(CheckpointError, match=says):
        resume(path, checkpoint="step-000006")
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == before


def test_a_checkpoint_is_itself_after_it_was_made_smaller(path):
    """Those who know it by its seal, such as evaluate --follow, know it still."""
    seals = [c.seal() for c in RunDirectory(path).checkpoints()]
    drop_optimizer_states(RunDirectory(path), keep=1)
    drop_optimizer_states(RunDirectory(path), keep=1)
    assert [c.seal() for c in RunDirectory(path).checkpoints()] == seals


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(6))
def test_killed_while_it_is_made_smaller_a_checkpoint_loads(path, monkeypatch, moment):
    whole = hashlib.sha256((RunDirectory(path).find(6).path / "model.safetensors").read_bytes()).hexdigest()
    left = [moment]

    def counted(act):
        def acting(*given, **named):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return act(*given, **named)

        return acting

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", counted(os.rename))
        patch.setattr(durable, "flush", counted(durable.flush))
        patch.setattr("pathlib.Path.unlink", counted(type(path).unlink))
        with pytest.raises(Killed):
            drop_optimizer_states(RunDirectory(path), keep=1)
    for checkpoint in RunDirectory(path).checkpoints():
        checkpoint.verify()
    assert hashlib.sha256((RunDirectory(path).find(6).path / "model.safetensors").read_bytes()).hexdigest() == whole
    list(resume(path, overrides=["train.keep.optimizer_states=1"]).events())
    assert states(path) == [12], "what a kill left undone is done when the run ends the next time"


def test_a_damaged_checkpoint_stays_damaged_and_is_named(path):
    file = RunDirectory(path).find(6).path / "manifest.json"
    text = file.read_text()
    assert f'"format": {FORMAT}' in text
    file.write_text(text.replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    drop_optimizer_states(RunDirectory(path), keep=1)
    assert 6 in states(path)
    with pytest.raises(Damaged, match=r"manifest\.json"):
        Checkpoint(file.parent).verify()
