"""Batches are prepared one step ahead in a thread, which ends with the training."""

import threading

import pytest
import tiny_run

from dragoman.train import trainer
from dragoman.train.prefetch import Prefetcher
from dragoman.train.run import start
from dragoman.train.step_batches import StepBatches


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_every_step_is_what_was_made_for_it_and_errors_come_at_their_step():
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("two")
        return 10 * step

    prefetcher = Prefetcher(make)
    assert [prefetcher(step) for step in (0, 1, 7, 3)] == [0, 10, 70, 30]  # a resumed run begins elsewhere
    assert prefetcher(1) == 10
    with pytest.raises(ValueError, match="two"):
        prefetcher(2)
    prefetcher.close()
    assert not running()


class Prefetched(StepBatches):
    """Prefetches as on a GPU."""

    def __init__(self, *given):
        super().__init__(*given)
        self.prefetcher = Prefetcher(self.parts)


@pytest.mark.parametrize("interrupted", [False, True])
def test_no_thread_is_left_after_a_training(tmp_path, monkeypatch, interrupted):
    monkeypatch.setattr(trainer, "StepBatches", Prefetched)
    cfg = tiny_run.config(tiny_run.write_pairs(tmp_path / "pairs.tsv"), budget={"kind": "steps", "steps": 3}, samples=0)
    events, begun = start(cfg, tmp_path / "run").events(), False
    for _ in events:
        begun = begun or bool(running())
        if interrupted and begun:
            events.close()
    assert begun
    assert not running()
