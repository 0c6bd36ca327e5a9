"""How much of what the machine can multiply a run makes use of: model FLOP utilisation (Chowdhery et al.,
arXiv:2204.02311, appendix B). Both sides of the fraction are found by running, not by formulas kept beside the model:
what a batch takes is counted where there are shapes only, what the machine can do is one large product, timed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dragoman.machine import peak
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.task_data import StepPlan, TaskData


@dataclass(frozen=True)
class Utilisation:
    flops: float
    """Of the matrix products that learning from one position takes, forward and backward; a product and its sum are
    two operations. Nothing that is computed twice to save memory counts twice."""
    peak: float
    """Of a large product in the run's precision, a second."""

    def share(self, positions: int, seconds: float) -> float:
        """Of the peak, that went into positions that are not padding."""
        return positions * self.flops / (seconds * self.peak)


def measure(cfg: RunConfig, task_data: TaskData, plan: StepPlan, device: torch.device) -> Utilisation | None:
    """For a run as ``task_data`` fills it, by the first batch of its ``plan``; None where shapes alone do not tell, as
    for a model whose work depends on what it reads."""
    flops = per_position(cfg, task_data, plan)
    return None if flops is None else Utilisation(flops, peak(cfg.train.precision, cfg.train.products, device))


def per_position(cfg: RunConfig, task_data: TaskData, plan: StepPlan) -> float | None:
    """Operations of ``Utilisation.flops``, without timing anything; None where shapes alone do not tell."""
    rows = plan.at(0)[0]
    flops = _flops(cfg, task_data, rows)
    return flops / task_data.size(rows)[1] if flops else None


def _flops(cfg: RunConfig, task_data: TaskData, rows: Any) -> int | None:
    model: Any = task_data.outline(cfg).train()
    batch = task_data.batch(rows).to("meta")
    with FlopCounterMode(display=False) as counter:
        try:
            cfg.task.loss(model, batch)[0].backward()
        except (NotImplementedError, RuntimeError):  # what torch says of shapes that depend on values
            return None
    return counter.get_total_flops()
