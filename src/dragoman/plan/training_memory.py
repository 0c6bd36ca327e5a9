"""Memory of training by part, on each device."""

from dataclasses import dataclass, fields

from dragoman.plan.heap import occupied
from dragoman.plan.training import TrainingCount

GPU_ALLOWANCE = 0.04
"""Share of what a step holds that PyTorch's caching allocator occupies besides: blocks are rounded up and split."""


@dataclass(frozen=True)
class TrainingMemory:
    """Most bytes that a run occupies on a device, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    averages: int
    """Moving average of the weights."""
    activations: int
    """Results of the forward pass that the backward pass needs."""
    logits: int
    """Logits and the loss, in chunks, and their gradients."""
    workspace: int
    """Memory of operations while they run, and of weights that sharded training gathers."""
    allowance: int
    """Gaps that the allocator occupies and cannot use."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def training_memory(
    found: TrainingCount, *, averaged: bool = False, devices: int = 1, sharded: bool = False
) -> TrainingMemory:
    """Return the memory of a run on each device.

    Args:
        found: what was counted for the part of a step that one device learns from.
        averaged: a moving average of the weights is kept.
        devices: number of processes that learn together, each from its own part of a step.
        sharded: each keeps its share of weights, gradients and optimizer (FSDP); otherwise each has the whole model.
    """
    share = devices if sharded else 1
    weights, state = sum(found.weights) // share, sum(found.state) // share
    averages = weights if averaged else 0
    step, update = _passes(found, share, devices), _update(found, share)
    peak = max(step, update, key=lambda held: sum(held.values()))
    known = weights + state + averages + sum(peak.values())
    if found.device.type == "cpu":
        before = [*found.weights, *(found.weights if averaged else ())]
        allowance = max(0, occupied(before, found.counted.memory, found.state) - _whole(found, averaged))
    else:
        allowance = int(GPU_ALLOWANCE * known)
    return TrainingMemory(weights=weights, optimizer=state, averages=averages, allowance=allowance, **peak)


def _passes(found: TrainingCount, share: int, devices: int) -> dict[str, int]:
    """Return what the forward and backward passes hold at their peak."""
    held = {"gradients": 0, "activations": 0, "logits": 0, "workspace": 0} | found.counted.peak
    held["gradients"] //= share
    if share > 1:  # the layer that computes and the next one are gathered, and a gradient is whole until it is reduced
        held["workspace"] += 2 * max(found.blocks, default=0)
    elif devices > 1:
        held["workspace"] += found.trainable  # all gradients are sent as one message
    return held


def _update(found: TrainingCount, share: int) -> dict[str, int]:
    """Return what the optimizer's step holds at its peak."""
    workspace = found.update.peak_bytes if found.update else 0
    return {"gradients": found.trainable // share, "activations": 0, "logits": 0, "workspace": workspace // share}


def _whole(found: TrainingCount, averaged: bool) -> int:
    """Return what one process with the whole model holds at its peak."""
    held = max(sum(_passes(found, 1, 1).values()), sum(_update(found, 1).values()))
    return sum(found.weights) * (2 if averaged else 1) + sum(found.state) + held
