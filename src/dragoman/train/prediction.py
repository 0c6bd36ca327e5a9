"""Prediction of a run's memory and time, from the run's own batches, before its first step.

The step is counted on shapes (``plan/training.py``), its memory is what it would allocate, and its time is that of its
operations on this machine (``plan/replay.py``). Nothing is random, and no weight is made.
"""

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dragoman.machine import keep_memory, return_memory
from dragoman.model.layer_stack import LayerStack
from dragoman.model.linear import multiply_by
from dragoman.plan import duration, here
from dragoman.plan.fit import Fit, FitSetting, fit
from dragoman.plan.memory_here import available_memory
from dragoman.plan.prediction import RunPrediction
from dragoman.plan.replay import RecordedStep
from dragoman.plan.training import TrainingCount, count_training
from dragoman.plan.training_memory import TrainingMemory, training_memory
from dragoman.train.distributed.micro_batch import split_between_processes, tensors
from dragoman.train.distributed.parallel import Sharded
from dragoman.train.progress import RunProgress
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.task_data import StepPlan, TaskData

SAMPLE = 64
"""Steps whose batches are looked at."""
MEASURE = 4.0
"""Seconds that the operations of a step are timed for, about."""
SIMILAR = 1.2
"""A batch stands for another with so much less work."""


@dataclass(frozen=True)
class _Sample:
    """Batches of the first steps: of each step the part of the process that has most to do."""

    batches: Sequence[Any]
    """Rows of each micro-batch, or of a piece of one."""
    cells: Sequence[int]
    """Positions of each, padding counted."""
    real: int
    """Positions that are not padding, of all processes."""
    steps: int

    @classmethod
    def of(cls, task_data: TaskData, plan: StepPlan, processes: int) -> "_Sample":
        steps, real, busiest = max(1, min(SAMPLE, plan.steps_per_epoch)), 0, list[tuple[Any, int]]()
        for step in range(steps):
            shares = list[list[tuple[Any, int]]]()
            for parts in split_between_processes(plan.at(step), processes):
                sizes = [task_data.size(part.batch) for part in parts]
                real += sum(found for (found, _), part in zip(sizes, parts, strict=True) if part.weight)
                shares.append([(part.batch, cells) for part, (_, cells) in zip(parts, sizes, strict=True)])
            busiest += max(shares, key=lambda share: sum(cells for _, cells in share))
        return cls([batch for batch, _ in busiest], [cells for _, cells in busiest], real, steps)

    @property
    def passes(self) -> int:
        """Return the micro-batches, or pieces of one, that the process reads in a step."""
        return len(self.batches) // self.steps

    @property
    def largest(self) -> int:
        return max(range(len(self.cells)), key=self.cells.__getitem__)

    @property
    def typical(self) -> int:
        """Return the index of the batch of median work; the largest one where that is about as much."""
        middle = statistics.median_low(self.cells)
        return self.largest if SIMILAR * middle >= self.cells[self.largest] else self.cells.index(middle)


class RunCounter:
    """Counts the steps of a run as configured, and with other settings."""

    def __init__(
        self,
        cfg: RunConfig,
        task_data: TaskData,
        plan: StepPlan,
        device: torch.device,
        processes: int = 1,
        progress: RunProgress | None = None,
        local_processes: int = 1,
    ):
        """
        Args:
            processes: number of processes that learn together; the one with most to do is counted.
            progress: of the run so far; None for a run before its first step.
            local_processes: those of them that share the memory of this machine.
        """
        self.cfg, self.task_data, self.plan, self.device = cfg, task_data, plan, device
        self.processes, self.local_processes = processes, local_processes
        self.progress = progress or RunProgress.beginning(cfg.train.budget, plan.steps_per_epoch)
        self.sample = _Sample.of(task_data, plan, processes)

    def count(
        self, which: int, *, recording: RecordedStep | None = None, update: bool = True, **changes: Any
    ) -> TrainingCount:
        """Count a step on micro-batch ``which``, with ``changes`` to ``train``; without the optimizer's ``update``
        where nobody asks for it."""
        train = dataclasses.replace(self.cfg.train, **changes)
        batch = self.task_data.batch(self.sample.batches[which])
        return count_training(
            outline_for_step(self.task_data, dataclasses.replace(self.cfg, train=train)),
            self.cfg.task.loss,
            [batch] * self.sample.passes,
            device=self.device,
            precision=getattr(torch, train.precision),
            optimizer=train.optimizer.build if update else None,
            observe=recording.observe if recording else None,
        )

    def largest(self, typical: TrainingCount) -> TrainingCount:
        """Count a step on the largest micro-batch, whose update is that of the ``typical`` one."""
        if self.sample.typical == self.sample.largest:
            return typical
        found = self.count(self.sample.largest, update=False)
        return dataclasses.replace(found, update=typical.update, state=typical.state)

    def memory(self, counted: TrainingCount) -> TrainingMemory:
        """Return the memory of a device."""
        train = self.cfg.train
        sharded = self.processes > 1 and isinstance(train.parallel, Sharded)
        return training_memory(counted, averaged=train.average is not None, devices=self.processes, sharded=sharded)

    def predict(self) -> RunPrediction:
        """Return the prediction for the run as configured."""
        sample, recording = self.sample, RecordedStep.empty()
        found = self.count(sample.typical, recording=recording)
        memory = self.memory(self.largest(found))
        parts, busy = self._times(found, recording)
        on_cpu = self.device.type == "cpu"
        kept = here.kept_code(recording, self.cfg.train.precision, len(set(self._shapes)) - 1) if on_cpu else 0
        cpu_seconds = sum(parts.values())
        steps = self._steps(cpu_seconds * busy)
        return RunPrediction(
            memory=memory.total + kept,
            parts=dataclasses.asdict(memory) | {"kept code": kept},
            available=available_on(self.device) // (self.local_processes if on_cpu else 1),
            step_seconds=cpu_seconds * busy,
            cpu_seconds=cpu_seconds,
            tokens_per_step=sample.real / sample.steps,
            steps=steps,
            made=self.progress.step,
            epochs=self._epochs(steps),
            shares={name: seconds / cpu_seconds for name, seconds in parts.items()},
            parameters=sum(found.weights) // 4,
            device=str(self.device),
            precision=self.cfg.train.precision,
            threads=torch.get_num_threads(),
        )

    @property
    def work(self) -> float:
        """Return the positions of an average step, in those that are counted."""
        sample = self.sample
        return sum(sample.cells) / sample.steps / sample.cells[sample.typical] / sample.passes

    def _times(self, found: TrainingCount, recording: RecordedStep) -> tuple[dict[str, float], float]:
        """Return the processor seconds of an average step by what they go into, and how busy the machine is."""
        update, sample = update_seconds(found, averaged=self.cfg.train.average is not None), self.sample
        if self.device.type != "cpu":
            passes = duration.predict(found.counted.operations, here.this_machine())
            return {"products": passes.seconds * self.work, "update": update}, 1.0
        step = here.step_here(recording, self.cfg.train.precision, within=MEASURE)
        times = len(sample.batches) / sample.steps / sample.passes
        parts = {
            "products": step.products * self.work,
            "other operations": step.others * self.work,
            "overhead": step.between * times,
            "new shapes": step.new_shapes * times * self._share_of_new_shapes(step.product_shapes),
            "update": update,
        }
        return parts, step.busy

    @functools.cached_property
    def _shapes(self) -> list[tuple[tuple[int, ...], ...]]:
        """Return the shapes of the batches of the sample."""
        batches = (self.task_data.batch(rows) for rows in self.sample.batches)
        return [tuple(tuple(tensor.shape) for tensor in tensors(batch)) for batch in batches]

    def _share_of_new_shapes(self, products: int) -> float:
        """Return the share of batches whose shapes none of the recent batches had, as far back as oneDNN remembers."""
        remembered, seen = here.remembered_products() // max(1, products), self._shapes
        new = sum(shape not in seen[max(0, i - remembered) : i] for i, shape in enumerate(seen))
        return new / len(seen) if len(set(seen)) > 1 else 0.0

    def _steps(self, seconds: float) -> int:
        """Return the steps of the whole run, each of which takes ``seconds`` from now on."""
        progress, limit = self.progress, self.cfg.train.budget.seconds
        if limit is None:
            return max(1, progress.total or 0)
        return max(1, progress.step + max(0, round((limit - progress.seconds) / seconds)))

    def _epochs(self, steps: int) -> float:
        per_epoch = self.plan.steps_per_epoch
        return self.progress.passes(per_epoch) + max(0, steps - self.progress.step) / per_epoch

    def nearest_fit(self, prediction: RunPrediction) -> Fit:
        """Return the nearest settings that fit into the memory that there is."""
        train, counted = self.cfg.train, dict[tuple[bool, str], tuple[int, int]]()

        def in_a_pass(setting: FitSetting) -> float:
            share = math.gcd(setting.accumulate, self.processes) / self.processes  # of a micro-batch that is divided
            return setting.batch_tokens * (1.0 if setting.accumulate >= self.processes else share)

        wanted = FitSetting(train.batch_tokens, train.accumulate, train.recompute, train.precision)

        def memory(setting: FitSetting) -> int:
            key = setting.recompute, setting.precision
            if key not in counted:
                held = self.memory(self.count(self.sample.largest, recompute=key[0], precision=key[1]))
                counted[key] = held.total, held.activations + held.logits
            total, growing = counted[key]
            return round(total - growing * (1 - in_a_pass(setting) / in_a_pass(wanted)))

        counted[wanted.recompute, wanted.precision] = (
            prediction.memory, prediction.parts["activations"] + prediction.parts["logits"]
        )  # fmt: skip
        return fit(memory, wanted, prediction.available)


def outline_for_step(task_data: TaskData, cfg: RunConfig) -> nn.Module:
    """Build the model of a run on the meta device, with the products and checkpointing that the run will use."""
    model = task_data.outline(cfg)
    multiply_by(model, cfg.train.products)
    for module in model.modules():
        if isinstance(module, LayerStack):
            module.recompute = cfg.train.recompute
    return model


def update_seconds(found: TrainingCount, *, averaged: bool) -> float:
    """Return the seconds of clipping, of the optimizer's step, and of the moving average."""
    operations = found.update.operations if found.update else []
    moved = sum(operation.calls * operation.bytes_moved for operation in operations)
    moved += 3 * found.trainable + (3 * found.trainable if averaged else 0)  # read for the norm, then scaled
    flops = sum(operation.calls * operation.flops for operation in operations)
    machine = here.this_machine() if flops else None
    return moved / here.bandwidth_here() + (flops / machine.speed("float32") if machine else 0.0)


def available_on(device: torch.device) -> int:
    """Return the bytes of memory that a run on ``device`` may take."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def predict_run(
    cfg: RunConfig,
    task_data: TaskData,
    plan: StepPlan,
    device: torch.device,
    processes: int = 1,
    progress: RunProgress | None = None,
    local_processes: int = 1,
) -> tuple[RunPrediction, RunCounter]:
    """Return the prediction of a run whose data is prepared and whose settings are complete, and its counter.

    Time and memory are those of the process with most to do; the arguments are those of ``RunCounter``.

    The generators of random numbers are as before, and memory that was used is given back.
    """
    keep_memory()  # as the run will
    try:
        counter = RunCounter(cfg, task_data, plan, device, processes, progress, local_processes)
        return counter.predict(), counter
    finally:
        return_memory()
