"""Model FLOP utilisation (Chowdhery et al., arXiv:2204.02311, appendix B): the fraction of the machine's peak that a
run uses. Both sides of the fraction are measured, not computed by formulas kept beside the model: the operations of a
batch are counted on shapes alone, and the peak is the speed of one large product, timed."""

from dataclasses import dataclass

import torch

from dragoman.machine import peak
from dragoman.plan.training import count_training
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.task_data import StepPlan, TaskData


@dataclass(frozen=True)
class Utilisation:
    """Measured cost of a position and measured peak of the machine."""

    flops: float
    """Operations of products and recurrences for learning from one position, forward and backward; a multiplication and
    an addition are two operations. What is recomputed to save memory is not counted twice."""
    peak: float
    """Operations per second of a large product in the run's precision."""

    def share(self, positions: int, seconds: float) -> float:
        """Return the fraction of the peak that went into ``positions``, padding not counted."""
        return positions * self.flops / (seconds * self.peak)


def measure(cfg: RunConfig, task_data: TaskData, plan: StepPlan, device: torch.device) -> Utilisation:
    """Measure the utilisation of a run as ``task_data`` fills it, by the first batch of its ``plan``."""
    return Utilisation(per_position(cfg, task_data, plan), peak(cfg.train.precision, cfg.train.products, device))


def per_position(cfg: RunConfig, task_data: TaskData, plan: StepPlan) -> float:
    """Return ``Utilisation.flops`` without timing anything."""
    rows = plan.at(0)[0]
    found = count_training(task_data.outline(cfg), cfg.task.loss, [task_data.batch(rows)])
    return found.counted.learned_flops / task_data.size(rows)[1]
