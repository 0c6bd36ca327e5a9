"""Model FLOP utilisation: what is counted on shapes is what a real step multiplies, and a run reports its share."""

from dataclasses import replace

import pytest
import tiny_run
import torch
from torch import nn

from dragoman import machine
from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, override, to_dict
from dragoman.machine import peak
from dragoman.model.families import ModelConfig
from dragoman.train import utilisation
from dragoman.train.events import StepsReported
from dragoman.train.run import start
from dragoman.train.tasks import task_data_for
from dragoman.train.utilisation import Utilisation

EXPERTS = "*.pattern.*.mlp={kind: mixture, experts: 4, active: 2, expert: {kind: feed_forward, hidden: 16}}"


@pytest.fixture(autouse=True, scope="module")
def counted_for_each_run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilisation, "per_position", utilisation.per_position.__wrapped__)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("utilisation")
    run = start(tiny_run.config(tiny_run.write_pairs(folder / "pairs.tsv"), average=None), folder / "run")
    return run, list(run.events())


def multiplied(module, args, output):
    """By a linear layer, forward and twice as much backward."""
    return 3 * 2 * output.numel() * module.in_features


def test_what_is_counted_on_shapes_is_what_a_real_batch_multiplies(run):
    run, _ = run
    cfg, task_data = run.cfg, task_data_for(run.cfg).open(run.cfg, RunDirectory.open(run.directory.path))
    rows = run.plan.at(0)[0]
    batch, model = task_data.batch(rows), run.cfg.model.build()
    by_layers = []
    for layer in (m for m in model.modules() if isinstance(m, nn.Linear)):
        layer.register_forward_hook(lambda *given: by_layers.append(multiplied(*given)))
    model(batch.target_in, batch.source)
    C, H = 4, 2
    B, S, T = len(rows), batch.source.shape[1], batch.target_in.shape[1]
    attention = sum(3 * 2 * 2 * B * H * q * k * C for q, k in ((S, S), (T, T), (T, S)))  # scores and their values
    counted = utilisation.measure(cfg, task_data, run.plan, torch.device("cpu"))
    assert counted and counted.flops * task_data.size(rows)[1] == pytest.approx(sum(by_layers) + attention, rel=0.2)
    assert counted.flops * task_data.size(rows)[1] >= sum(by_layers)


def test_a_run_tells_its_share_of_the_peak_in_every_report(run):
    run, events = run
    shares = [event.utilisation for event in events if isinstance(event, StepsReported)]
    assert shares and all(share is not None and 0 < share < 1 for share in shares)
    written = [row for row in tiny_run.rows(run.directory.path / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["utilisation"] for row in written] == shares
    page = (run.directory.path / "report.html").read_text()
    assert "model FLOP utilisation" in page and "Model FLOP utilisation, %" in page


def test_a_share_is_what_was_multiplied_of_what_could_have_been():
    assert Utilisation(flops=100.0, peak=1000.0).share(positions=20, seconds=4.0) == 0.5


def test_work_that_depends_on_the_data_is_as_expected(run, monkeypatch):
    """A loss that reads only targets that are not padding, and experts, whose shares nobody knows."""
    run, _ = run
    cfg = replace(run.cfg, model=from_dict(ModelConfig, override(to_dict(run.cfg.model), EXPERTS)))
    task_data = task_data_for(run.cfg).open(run.cfg, RunDirectory.open(run.directory.path))
    experts, one = (utilisation.per_position(each, task_data, run.plan) for each in (cfg, run.cfg))
    assert experts > one


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_peak_is_that_of_a_product_in_the_runs_precision(precision, monkeypatch):
    asked = []
    monkeypatch.setattr(
        machine, "shortest_times", lambda candidates, rounds: asked.append(candidates) or {"product": 0.5}
    )
    monkeypatch.setattr(machine.F, "linear", lambda x, weight: asked.append(x.dtype))
    measured_anew = peak.__wrapped__(precision, "torch", torch.device("cpu"))  # whatever this process has measured
    assert measured_anew == 2 * 1024**3 / 0.5
    asked.pop()["product"]()
    assert asked == [getattr(torch, precision)]
