"""Checkpoints are evaluated while a run goes on, each once, and whatever happens to them meanwhile."""

import json
import shutil

import pytest
import torch

from dragoman.checkpoint import RunDirectory
from dragoman.errors import CheckpointError
from dragoman.train.follow import follow, journal
from dragoman.train.report import page as report


def save(run, step, value=0.0):
    run.save(step, tensors={"model": {"w": torch.full((2,), value)}}, progress={"step": step}, config={})


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    yield run
    run.close()


def examined(path):
    return {"BLEU": float(path.name[-2:])}


def test_the_newest_is_evaluated_first_and_each_once(run):
    for step in (10, 20, 30):
        save(run, step)
    run.close()  # nobody trains any more
    assert [seen.step for seen in follow(run, examined, journal(run, "valid"))] == [30, 20, 10]
    assert list(follow(run, examined, journal(run, "valid"))) == []
    assert {line["step"]: line["scores"]["BLEU"] for line in journal(run, "valid").lines()} == {30: 30, 20: 20, 10: 10}


def test_it_waits_while_somebody_trains_and_no_longer(run):
    moments = iter([lambda: save(run, 10), lambda: save(run, 20), run.close])
    seen = list(follow(run, examined, journal(run, "valid"), sleep=lambda _: next(moments)()))
    assert [found.step for found in seen] == [10, 20]


def test_a_run_that_is_read_can_still_be_written_to(run):
    assert run.is_being_written()
    run.close()
    assert not run.is_being_written()
    RunDirectory.open(run.path, write=True).close()


def test_a_checkpoint_that_was_trained_anew_is_evaluated_anew(run):
    save(run, 10)
    run.close()
    list(follow(run, examined, journal(run, "valid")))
    shutil.rmtree(run.folder / "step-000010")
    save(run, 10, value=1.0)
    assert [seen.step for seen in follow(run, examined, journal(run, "valid"))] == [10]


def test_one_that_is_pruned_meanwhile_is_passed_over_and_a_damaged_one_is_told(run):
    save(run, 10), save(run, 20)
    run.close()

    def pruned(path):
        shutil.rmtree(path) if path.name.endswith("20") else None
        return examined(path) if path.exists() else (_ for _ in ()).throw(CheckpointError("gone"))

    assert [seen.step for seen in follow(run, pruned, journal(run, "valid"))] == [10]
    save(run, 30)

    def damaged(path):
        raise CheckpointError(f"{path}: damaged")

    with pytest.raises(CheckpointError, match="step-000030: damaged"):
        list(follow(run, damaged, journal(run, "valid")))


def test_the_report_shows_the_scores_by_step(run):
    for step in (10, 20):
        save(run, step)
    run.close()
    list(follow(run, examined, journal(run, "valid")))
    report.write(run)
    page = (run.path / "report.html").read_text()
    assert "valid: scores of every checkpoint" in page
    assert json.dumps([10, 20], separators=(",", ":")) in page.replace("&quot;", '"')
