"""Model FLOP utilisation (Chowdhery et al., arXiv:2204.02311, appendix B): the fraction of the machine's peak that a
run uses. Both sides of the fraction are measured, not computed by formulas kept beside the model: the operations of a
batch are counted on shapes alone, and the peak is the speed of one large product, timed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dragoman.machine import peak
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.task_data import StepPlan, TaskData


@dataclass(frozen=True)
class Utilisation:
    """Measured cost of a position and measured peak of the machine."""

    flops: float
    """Operations of the matrix products for learning from one position, forward and backward; a multiplication and an
    addition are two operations. What is recomputed to save memory is not counted twice."""
    peak: float
    """Operations per second of a large product in the run's precision."""

    def share(self, positions: int, seconds: float) -> float:
        """Return the fraction of the peak that went into ``positions``, padding not counted."""
        return positions * self.flops / (seconds * self.peak)


def measure(cfg: RunConfig, task_data: TaskData, plan: StepPlan, device: torch.device) -> Utilisation | None:
    """Measure the utilisation of a run as ``task_data`` fills it, by the first batch of its ``plan``; None where shapes
    alone do not tell, as for a model whose work depends on the data."""
    flops = per_position(cfg, task_data, plan)
    return None if flops is None else Utilisation(flops, peak(cfg.train.precision, cfg.train.products, device))


def per_position(cfg: RunConfig, task_data: TaskData, plan: StepPlan) -> float | None:
    """Return ``Utilisation.flops`` without timing anything; None where shapes alone do not tell."""
    rows = plan.at(0)[0]
    flops = _flops(cfg, task_data, rows)
    return flops / task_data.size(rows)[1] if flops else None


def _flops(cfg: RunConfig, task_data: TaskData, rows: Any) -> int | None:
    model: Any = task_data.outline(cfg).train()
    batch = task_data.batch(rows).to("meta")
    with FlopCounterMode(display=False) as counter:
        try:
            cfg.task.loss(model, batch)[0].backward()
        except (NotImplementedError, RuntimeError):  # raised by torch for shapes that depend on values
            return None
    return counter.get_total_flops()
