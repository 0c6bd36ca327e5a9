"""Scaling the loss changes no gradient, keeps small ones, gives way to overflow, and is resumed where it was."""

import math
from dataclasses import asdict

import pytest
import tiny_run
import torch
from test_loop import TASK, batch, gradients, model, step, suppressed, weights
from tiny_run import outcome

from dragoman.errors import ConfigError
from dragoman.machine import autocast
from dragoman.train.events import Notice, Saved
from dragoman.train.progress import RunProgress
from dragoman.train.run import resume, start
from dragoman.train.scaling import LossScaling, Unscaled, scaling_for

FLOAT16_MAX = torch.finfo(torch.float16).max


class Quick(LossScaling):
    first, patience = 2.0**20, 3


def halved(loss):
    """``loss`` whose gradient by the output passes through float16, as on a GPU."""

    def through(module, given):
        summed, count = loss(module, given)
        summed = summed + _Half.apply(module.output.weight).sum() * 100
        return summed, count

    return through


class _Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.half().float()


def test_only_float16_is_scaled():
    assert isinstance(scaling_for("float16"), LossScaling)
    assert not isinstance(scaling_for("bfloat16"), LossScaling) and not isinstance(scaling_for("float32"), LossScaling)
    progress = RunProgress()
    step(model(), [batch()], progress)
    assert progress.scale is None


def test_a_power_of_two_changes_no_bit_of_a_float32_gradient():
    plain, scaled = model(), model()
    a = step(plain, [batch(0), batch(1)], clip=0.5)
    b = step(scaled, [batch(0), batch(1)], clip=0.5, scaling=LossScaling())
    assert a == b
    assert all(torch.equal(gradients(scaled)[name], gradient) for name, gradient in gradients(plain).items())
    assert all(torch.equal(weights(scaled)[name], weight) for name, weight in weights(plain).items())


@pytest.mark.parametrize(("scaling", "kept"), [(Unscaled(), False), (LossScaling(), True)], ids=["plain", "scaled"])
def test_a_gradient_too_small_for_float16_is_kept_by_scaling(scaling, kept):
    def tiny(module, given):
        return (_Half.apply(module.output.bias) * 1e-8).sum(), torch.tensor(1.0)

    module = model()
    step(module, [batch()], loss=tiny, scaling=scaling)
    assert bool(module.output.bias.grad.any()) is kept


def test_overflow_skips_the_step_and_halves_the_scale_until_it_fits():
    module, progress, reports = model(), RunProgress(), []
    before = weights(module)
    for _ in range(14):
        reports.append(step(module, [batch()], progress, loss=halved(TASK.loss), scaling=Quick(), give_up_after=20))
        if reports[-1].skipped:
            assert all(torch.equal(value, before[name]) for name, value in weights(module).items())
    fits = 2.0 ** math.floor(math.log2(FLOAT16_MAX / 100))
    skipped = int(math.log2(Quick.first / fits))
    assert [report.skipped for report in reports[: skipped + 1]] == [True] * skipped + [False]
    assert progress.scale in (fits, 2 * fits) and progress.skipped >= skipped
    assert not any(torch.equal(value, before[name]) for name, value in weights(module).items())


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_the_scale_goes_the_way_of_torchs_grad_scaler():
    theirs = torch.amp.GradScaler("cpu", init_scale=128.0, growth_interval=3)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    ours, scale, held = type("Three", (LossScaling,), {"patience": 3})(), 128.0, 0
    for finite in [True, True, False, True, True, True, True, False, False, True, True, True, True, True, True, True]:
        theirs.scale(weight.sum()).backward()
        weight.grad.mul_(1.0 if finite else math.inf)
        theirs.step(optimizer), theirs.update()
        optimizer.zero_grad()
        scale, held = ours.after(scale, held, finite)
        assert scale == theirs.get_scale()


def test_gradients_in_float16_are_nearly_those_in_float32():
    """On a CPU, which computes float16 as a GPU does, only not faster."""
    exact, rough = suppressed(model()), suppressed(model())
    a = step(exact, [batch()])
    b = step(rough, [batch()], precision=autocast("float16", torch.device("cpu")), scaling=LossScaling())
    assert b.loss == pytest.approx(a.loss, rel=2e-3) and b.loss != a.loss and not b.skipped
    true, found = (torch.cat([g.flatten() for g in gradients(module).values()]) for module in (exact, rough))
    assert (found - true).norm() <= 0.02 * true.norm()


def test_progress_remembers_the_scale():
    progress = RunProgress(scale=64.0, scale_steps=17)
    assert RunProgress.from_dict(asdict(progress)) == progress
    older = {k: v for k, v in asdict(progress).items() if not k.startswith("scale")}
    assert RunProgress.from_dict(older).scale is None, "a checkpoint of before"


def test_a_run_with_scaling_that_was_stopped_equals_the_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr("dragoman.train.train_state.scaling_for", lambda precision: Quick())
    monkeypatch.setattr("dragoman.data.tasks.TranslationTask.loss", halved_loss(TASK.loss.__func__))
    cfg = tiny_run.config(tiny_run.write_pairs(tmp_path / "pairs.tsv"), give_up_after=20)
    events = list(start(cfg, tmp_path / "whole").events())
    assert any(isinstance(e, Notice) and "step skipped; the loss scale is now 524288" in e.text for e in events)
    events = start(cfg, tmp_path / "stopped").events()
    assert any(isinstance(event, Saved) for event in events)
    events.close()
    list(resume(tmp_path / "stopped").events())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    assert outcome(tmp_path / "whole")["progress"]["scale"] < Quick.first


def halved_loss(method):
    return lambda self, module, given: halved(lambda m, b: method(self, m, b))(module, given)


def test_float16_on_a_cpu_is_refused_before_anything_is_written(tmp_path):
    cfg = tiny_run.config(tiny_run.write_pairs(tmp_path / "pairs.tsv"), precision="float16", device="cpu")
    with pytest.raises(ConfigError, match=r"train\.precision: float16 is for GPUs.*use auto, bfloat16 or float32"):
        start(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: float16 is for GPUs")
def test_a_run_in_float16_on_a_gpu_learns(tmp_path):
    cfg = tiny_run.config(tiny_run.write_pairs(tmp_path / "pairs.tsv"), precision="float16", device="cuda")
    list(start(cfg, tmp_path / "run").events())
    losses = [row["loss"] for row in outcome(tmp_path / "run")["metrics"] if row["kind"] == "train"]
    assert losses[-1] < losses[0]
