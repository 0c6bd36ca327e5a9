"""A run for which memory does not suffice saves, names the batch, and says which setting goes on."""

import pytest
import tiny_run
from tiny_run import outcome
from torch._subclasses.fake_tensor import FakeTensor

from dragoman.checkpoint import RunDirectory
from dragoman.data.tasks import TranslationTask
from dragoman.train.events import Notice
from dragoman.train.memory import OutOfMemory
from dragoman.train.run import resume, start


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


def full(monkeypatch, what, calls):
    """Memory is exhausted from so many ``calls`` of the task's ``what`` on."""
    ask, seen = getattr(TranslationTask, what), []

    def exhausted(self, model, batch):
        seen.append(batch)
        if len(seen) >= calls:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")
        return ask(self, model, batch)

    monkeypatch.setattr(TranslationTask, what, exhausted)


def test_the_last_finished_step_is_saved_and_the_command_that_goes_on_goes_on(pairs, tmp_path, monkeypatch):
    whole, path = tmp_path / "whole", tmp_path / "run"
    list(start(tiny_run.config(pairs), whole).events())
    with monkeypatch.context() as patch:
        full(patch, "loss", calls=10)
        with pytest.raises(OutOfMemory) as told:
            list(start(tiny_run.config(pairs, on_memory="stop"), path).events())
    message = str(told.value)
    assert message.startswith("step 5: out of memory on a batch of ") and " rows of " in message
    assert "step-000004 is good" in message
    command = f"dragoman train {path} --resume --deliberate train.batch_tokens=200 train.accumulate=4"
    assert message.endswith(command)
    assert RunDirectory.open(path).find("last").step == 4
    list(resume(path, overrides=["train.on_memory=split"]).events())
    assert outcome(path)["tensors"] == outcome(whole)["tensors"], "nothing of the step that failed was kept"


def test_the_settings_that_are_told_make_steps_of_the_same_size(pairs, tmp_path):
    list(start(tiny_run.config(pairs), tmp_path / "run").events())
    before = RunDirectory.open(tmp_path / "run").load("last").progress["tokens"]
    settings = ["train.batch_tokens=200", "train.accumulate=4", "train.budget.steps=24"]
    list(resume(tmp_path / "run", overrides=settings, deliberate=True).events())
    after = RunDirectory.open(tmp_path / "run").load("last").progress["tokens"]
    assert after / before == pytest.approx(2, rel=0.2)


def test_a_step_made_in_pieces_is_a_notice_with_the_setting_that_fits(pairs, tmp_path, monkeypatch):
    ask = TranslationTask.loss

    def small(self, model, batch):
        if len(batch.source) > 5 and not isinstance(next(model.parameters()), FakeTensor):  # those are only counted
            raise MemoryError
        return ask(self, model, batch)

    monkeypatch.setattr(TranslationTask, "loss", small)
    events = list(start(tiny_run.config(pairs), tmp_path / "run").events())
    notices = [event.text for event in events if isinstance(event, Notice) and "out of memory" in event.text]
    assert notices[0] == (
        "step 1: out of memory, computed in smaller pieces; batches that fit: train.batch_tokens=200 train.accumulate=4"
    )
    assert events[-1].step == 12


def test_a_validation_without_memory_saves_too(pairs, tmp_path, monkeypatch):
    full(monkeypatch, "nll", calls=2)
    with pytest.raises(OutOfMemory, match=r"step 5: out of memory in the validation before it.*step-000004 is good"):
        list(start(tiny_run.config(pairs, batch_tokens=100), tmp_path / "run").events())
