"""However a step is cut up, over processes or for want of memory, it learns from the same rows and the same sum."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_loop import TASK, batch, cut, gradients, model, suppressed

from dragoman.train.distributed.micro_batch import (
    MicroBatch,
    describe,
    halve,
    num_elements,
    split_between_processes,
    unsplit,
)
from dragoman.train.loop import LoopProgress, StepRules, train_step
from dragoman.train.memory import OutOfMemory, Split, Stop
from dragoman.train.optimize import Adam, state_tensors

# ---- processes ------------------------------------------------------------------------------------

rows_of_a_step = st.lists(st.integers(1, 9), min_size=1, max_size=7)


@given(rows_of_a_step, st.integers(1, 5))
def test_each_row_is_learned_from_once_and_all_processes_make_as_many_passes(sizes, count):
    numbers = iter(range(1000))
    step = [np.array([next(numbers) for _ in range(rows)]) for rows in sizes]
    shares = split_between_processes(step, count)
    learned = [row for share in shares for part in share if part.weight for row in part.batch]
    assert sorted(learned) == sorted(np.concatenate(step).tolist())
    assert len({len(share) for share in shares}) == 1 and len(shares) == count
    assert all(len(part.batch) for share in shares for part in share), "also those that only keep pace"
    places = [part.position for share in shares for part in share]
    assert len(set(places)) == len(places), "no two draw the same random numbers"


@given(rows_of_a_step, st.integers(1, 5))
def test_micro_batches_stay_whole_while_there_is_one_for_each_process(sizes, count):
    step = [list(range(rows)) for rows in sizes]
    uncut = [part for share in split_between_processes(step, count) for part in share if len(part.position) == 1]
    assert sorted(part.position[0] for part in uncut) == list(range(len(step) - len(step) % count))
    assert all(part.batch == step[part.position[0]] for part in uncut)


def test_a_process_that_only_keeps_pace_adds_nothing():
    together, alone = suppressed(model()), suppressed(model())
    step(together, [*unsplit([batch()]), MicroBatch(batch(1), (1,), weight=0.0)])
    step(alone, unsplit([batch()]))
    assert all(torch.equal(gradients(together)[name], g) for name, g in gradients(alone).items())


# ---- memory ---------------------------------------------------------------------------------------


def step(module, parts, *, loss=TASK.loss, progress=None, optimizer=None, on_memory=Stop()):  # noqa: B008
    rules = StepRules(seed=1, clip=None, on_memory=on_memory)
    optimizer = optimizer or Adam().build(module)
    return train_step(module, loss, parts, optimizer, progress or LoopProgress(), lr=1e-3, rules=rules)


def limited(rows, error=lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")):
    """A loss with room for so many rows; what is too large leaves half of its gradient behind."""

    def loss(module, b):
        summed, count = TASK.loss(module, b)
        if len(b[0]) > rows:
            (summed * 3).backward()
            raise error()
        return summed, count

    return loss


ERRORS = {
    "allocator": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    "python": MemoryError,
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory."),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_step_that_does_not_fit_is_made_in_halves_with_the_same_gradient(rows, error):
    fits, split = suppressed(model()), suppressed(model())
    whole_report = step(fits, unsplit([batch(), batch(1, rows=2)]))
    report = step(split, unsplit([batch(), batch(1, rows=2)]), loss=limited(rows, ERRORS[error]), on_memory=Split())
    assert report.retries > 0 and report.tokens == whole_report.tokens
    assert report.loss == pytest.approx(whole_report.loss, rel=1e-5)
    for name, gradient in gradients(fits).items():
        torch.testing.assert_close(gradients(split)[name], gradient, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(
    ("on_memory", "rows", "message"),
    [(Stop(), 5, r"on a batch of 6 rows of 7 tokens$"), (Split(), 0, r"on 1 row of 7 tokens$")],
    ids=["stop", "a single row"],
)
def test_a_step_that_cannot_be_made_names_the_batch_and_changes_nothing(on_memory, rows, message):
    module, progress = model(), LoopProgress()
    optimizer = Adam().build(module)
    step(module, unsplit([batch()]), progress=progress, optimizer=optimizer)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}, len(state_tensors(optimizer, module))
    with pytest.raises(OutOfMemory, match=message):
        step(
            module, unsplit([batch(1)]), progress=progress, optimizer=optimizer, loss=limited(rows), on_memory=on_memory
        )
    assert progress.step == 1 and len(state_tensors(optimizer, module)) == before[1]
    assert all(torch.equal(before[0][name], p) for name, p in module.named_parameters())
    assert all(p.grad is None for p in module.parameters()), "their memory is free"


def test_other_errors_are_none_of_memory():
    with pytest.raises(RuntimeError, match="shapes differ"):
        step(model(), unsplit([batch()]), loss=limited(2, lambda: RuntimeError("shapes differ")), on_memory=Split())


def test_halves_are_all_of_a_part_and_draw_unlike_numbers():
    part = MicroBatch(batch(), (3,))
    first, second = halve(part)
    for tensor, a, b in zip(part.batch, first.batch, second.batch, strict=True):
        assert torch.equal(torch.cat([a, b]), tensor)
    assert first.position != second.position and num_elements(first) == num_elements(part) / 2
    (single,) = (MicroBatch(b, (0,)) for b in cut(batch(), 1)[:1])
    assert halve(single) == [single] and describe(single) == "1 row of 7 tokens"
