"""Batches of a step as one process needs them: its part of the micro-batches, as tensors on its device."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dragoman.train.distributed.micro_batch import MicroBatch, pin_memory, split_between_processes
from dragoman.train.distributed.processes import SingleProcess
from dragoman.train.prefetch import Prefetcher
from dragoman.train.progress import RunProgress
from dragoman.train.tasks.task_data import StepPlan, TaskData


class StepBatches:
    """Batches of every step, prefetched on a GPU. Each process takes its part of what all of them learn from."""

    def __init__(self, task_data: TaskData, plan: StepPlan, device: torch.device, group: SingleProcess):
        self.task_data, self.plan, self.device, self.group = task_data, plan, device, group
        self.on_gpu = device.type == "cuda"
        self.prefetcher = Prefetcher(self.parts) if self.on_gpu else None
        self.rows: Sequence[Any] = ()
        """Rows of the last step that was uploaded, over all processes."""

    def parts(self, step: int) -> tuple[list[MicroBatch], Sequence[Any]]:
        """Return the parts that this process learns from in a step, in host memory, and the rows of all processes."""
        micro_batches = self.plan.at(step)
        mine = split_between_processes(micro_batches, self.group.count)[self.group.rank]
        parts = [part._replace(batch=self.task_data.batch(part.batch)) for part in mine]
        return [pin_memory(part) for part in parts] if self.on_gpu else parts, micro_batches

    def upload(self, step: int) -> list[MicroBatch]:
        """Return the parts that this process learns from in a step, on its device."""
        parts, self.rows = (self.prefetcher or self.parts)(step)
        return [part._replace(batch=part.batch.to(self.device)) for part in parts]

    def examples(self, steps: range) -> Iterator[Any]:
        """Yield the batches of these steps, on the device, without prefetching."""
        return (part.batch.to(self.device) for step in steps for part in self.parts(step)[0])

    def close(self) -> None:
        """End the prefetching."""
        if self.prefetcher:
            self.prefetcher.close()

    def count(self, progress: RunProgress) -> None:
        """Add the positions and the tokens of the last step that was uploaded to ``progress``."""
        for rows in self.rows:
            real, cells = self.task_data.size(rows)
            progress.window.real, progress.window.cells = progress.window.real + real, progress.window.cells + cells
            progress.count(self.task_data.origins(rows))
