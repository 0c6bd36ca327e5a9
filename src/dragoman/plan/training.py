"""Work and memory of a training step, of any model and task."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dragoman.model.ops.observed import standing_for
from dragoman.plan import shapes
from dragoman.plan.counting import CPU, Counted, Observer, count, on_shapes

Loss = Callable[[Any, Any], tuple[Tensor, Tensor]]
"""Loss function: (model, batch) -> (summed loss, number of tokens it was summed over)."""


@dataclass(frozen=True)
class TrainingCount:
    """Work and memory of the steps of a run."""

    counted: Counted
    """Forward and backward passes over all micro-batches of a step."""
    update: Counted | None
    """The optimizer's step; None without an optimizer."""
    weights: tuple[int, ...]
    """Bytes of each parameter and buffer."""
    trainable: int
    """Bytes of the gradients, one for each parameter that learns."""
    state: tuple[int, ...]
    """Bytes of each tensor of the optimizer's state."""
    blocks: tuple[int, ...]
    """Bytes of the weights of each repeated layer, in order: what sharded training gathers at once."""
    device: torch.device


def count_training(
    model: nn.Module,
    loss: Loss,
    batches: Sequence[Any],
    *,
    device: torch.device = CPU,
    precision: torch.dtype = torch.float32,
    optimizer: Callable[[nn.Module], Optimizer] | None = None,
    observe: Observer | None = None,
) -> TrainingCount:
    """Count a step.

    Args:
        model: model on the meta device, whose tensors this function replaces.
        loss: the task's loss function.
        batches: micro-batches of a step; ids with their values. Of successive ones that are the same object two are
            run: the first, and the second beside its gradients for all others.
        device: device of the run; a GPU need not be here.
        precision: data type of products: with less than float32, weights are converted for them (autocast).
        optimizer: makes the optimizer of a model.
        observe: is told of every operation of the passes.
    """
    model.train()
    with on_shapes(device):
        shapes.without_values(model, CPU)
        alike = [list(group) for _, group in itertools.groupby(batches, key=id)]
        given = [(shapes.inputs_on(group[0], CPU), len(group)) for group in alike]

        def step() -> None:
            for batch, number in given:
                for times in (1, number - 1) if number > 1 else (1,):
                    with standing_for(times):
                        with autocast(precision):
                            summed, _ = loss(model, batch)
                        summed.backward()

        counted = count(step, model, fused_attention=device.type != "cpu", observe=observe)
        update, state = _count_update(model, optimizer) if optimizer else (None, ())
    held = {id(t): t for t in (*model.parameters(), *model.buffers())}.values()
    return TrainingCount(
        counted,
        update,
        tuple(t.numel() * t.element_size() for t in held),
        sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad),
        state,
        tuple(sum(p.numel() * p.element_size() for p in layer.parameters()) for layer in _layers(model)),
        device,
    )


def autocast(precision: torch.dtype) -> AbstractContextManager[Any]:
    """Return the context of a forward pass: weights stay float32, products run in ``precision``."""
    return torch.autocast("cpu", precision, enabled=precision != torch.float32)


def _count_update(model: nn.Module, optimizer: Callable[[nn.Module], Optimizer]) -> tuple[Counted, tuple[int, ...]]:
    """Count the optimizer's step; return it and the bytes of each tensor of its state."""
    for p in model.parameters():
        p.grad = torch.empty_like(p) if p.requires_grad else None
    made = optimizer(model)
    count(lambda: made.step(), model)  # the first step allocates the state
    counted = count(lambda: made.step(), model)
    states = [t for state in made.state.values() for t in shapes.tensors_in(state) if t.numel() > 1]
    for p in model.parameters():
        p.grad = None
    return counted, tuple(t.numel() * t.element_size() for t in states)


def _layers(model: nn.Module) -> list[nn.Module]:
    return [
        layer for module in model.modules() for layer in getattr(module, "blocks", ()) if isinstance(layer, nn.Module)
    ]
