"""Averages of weights: a moving average updated while training, and one over the last checkpoints of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dragoman.checkpoint import RunDirectory
from dragoman.errors import CheckpointError
from dragoman.snapshot import Checkpoint


class MovingAverage:
    """Moving average of all trained parameters of a model: average <- decay average + (1 - decay) weights, in float32.

    Early on the weights change fast and the starting point is noise, so the decay grows with the steps seen:
    min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        learning = (p for p in model.parameters() if p.requires_grad)
        self.averages = {p: p.detach().to(torch.float32, copy=True) for p in learning}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after ``step`` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = list(self.averages.values()), [p.detach().float() for p in self.averages]
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the average for its weights."""
        kept = [p.detach().clone() for p in self.averages]
        try:
            self._copy(list(self.averages.values()))
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.averages, values, strict=True):
            parameter.copy_(value)

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the average under the names of ``model.state_dict()``; a tied weight appears under each of its
        names."""
        every = model.named_parameters(remove_duplicate=False)
        return {name: self.averages[p] for name, p in every if p in self.averages}

    def load(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        """Restore the average from ``tensors``, as the method of that name returned it."""
        for name, parameter in model.named_parameters():
            if parameter in self.averages:
                self.averages[parameter].copy_(tensors[name])


def average_checkpoints(run: RunDirectory, last: int = 5) -> Checkpoint:
    """Average the weights of the ``last`` newest checkpoints into a checkpoint of its own, ``average-last-5``.

    Vaswani et al. 2017 average the last 5 (base) and 20 (big), written every 10 minutes.

    Raises:
        CheckpointError: the run keeps fewer (see ``train.keep``), or one of them is damaged.
    """
    checkpoints = run.checkpoints()[-last:]
    if not checkpoints or len(checkpoints) < last:
        raise CheckpointError(
            f"{run.path}: {len(checkpoints)} checkpoints where {last} are to be averaged: raise train.keep.last"
        )
    newest = run.weights("last", ["model"])
    total: dict[str, Tensor] = {}
    for checkpoint in checkpoints:  # one at a time, so that memory does not grow with their number
        for name, value in run.weights(checkpoint.path.name, ["model"]).tensors["model"].items():
            total[name] = total[name] + value.double() if name in total else value.double()
    own = {v.data_ptr(): (total[n] / last).to(v.dtype) for n, v in newest.tensors["model"].items()}
    mean = {name: own[value.data_ptr()] for name, value in newest.tensors["model"].items()}  # tied weights stay tied
    return run.save(f"average-last-{last}", tensors={"model": mean}, progress=newest.progress, config=newest.config)
