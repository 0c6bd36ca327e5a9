"""One training step, and the loop that repeats it.

Everything random in a step is drawn from a generator seeded with (seed, step, index within the step), and the data is a
function of the step. So a run that resumes at step n continues exactly as it would have, and needs only weights,
optimizer and n; and it makes no difference which of several processes learns from which part of a step.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dragoman.errors import UserError
from dragoman.train.distributed.exchange import Exchange
from dragoman.train.distributed.micro_batch import MicroBatch, tensors
from dragoman.train.memory import KeepWhole, OnMemory, Stop, is_out_of_memory
from dragoman.train.scaling import Unscaled

Loss = Callable[[Any, Any], tuple[Tensor, Tensor]]
"""Loss function: (model, batch) -> (summed loss, number of tokens it was summed over)."""


class Diverged(UserError, ArithmeticError):
    """Raised after many steps in a row without a finite gradient: continuing would only waste time."""


@dataclass
class LoopProgress:
    """State of a loop besides weights and optimizer."""

    step: int = 0
    """Steps made, skipped ones included: they use up their data."""
    tokens: int = 0
    """Target tokens learned from."""
    skipped: int = 0
    """Steps that changed nothing because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    scale: float | None = None
    """Factor that the next step's loss is multiplied by (``scaling.py``); None before the first scaled step."""
    scale_steps: int = 0
    """Steps since the scale changed."""


@dataclass(frozen=True)
class StepReport:
    """Figures of one step."""

    step: int
    """Step number, counted from 1."""
    loss: float
    """Mean over the tokens of the whole step, not a mean of micro-batch means; 0 where there are none."""
    grad_norm: float
    """Norm of the gradient before clipping."""
    lr: float
    tokens: int
    """Target tokens in the step."""
    skipped: bool
    """True if loss or gradient was not finite, so nothing was changed."""
    retries: int = 0
    """Number of times a process restarted the step in smaller pieces because memory did not suffice."""


@dataclass(frozen=True, kw_only=True)
class StepRules:
    """Settings that stay the same from step to step."""

    seed: int
    clip: float | None = 1.0
    """Largest gradient norm: a longer gradient is scaled down to it. None for no limit."""
    give_up_after: int = 10
    """Steps in a row without a finite gradient after which training stops."""
    precision: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)
    """Context manager entered around each loss: autocast, or nothing."""
    exchange: Exchange = field(default_factory=Exchange)
    """Exchange with the other processes that learn from parts of the same step."""
    scaling: Unscaled = field(default_factory=Unscaled)
    on_memory: OnMemory | KeepWhole = field(default_factory=Stop)
    """Strategy for a part that does not fit into memory."""


def seed_of(*numbers: int) -> int:
    """Return a seed for (seed, step, index within the step). Neighbouring steps get unrelated seeds."""
    text = " ".join(map(str, numbers))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def train_step(
    model: nn.Module,
    loss: Loss,
    parts: Sequence[MicroBatch],
    optimizer: Optimizer,
    progress: LoopProgress,
    *,
    lr: float,
    rules: StepRules,
) -> StepReport:
    """Make one step on ``parts``, and on those of the other processes, as if they were one batch.

    Raises:
        Diverged: this was the last of ``rules.give_up_after`` steps in a row without a finite gradient.
        OutOfMemory: a part does not fit; nothing was changed.
    """
    optimizer.zero_grad(set_to_none=True)
    scale = progress.scale or rules.scaling.first
    sums = rules.exchange.all_reduce(model, _gradient(model, loss, parts, optimizer, progress.step, scale, rules))
    gradients = rules.exchange.gradients(model)
    norm = rules.exchange.norm(gradients)
    total, count, retries, norm = torch.stack([*sums, norm]).tolist()  # the step's only wait for a GPU
    divisor = count or 1.0  # rows of nothing but prompts teach nothing
    norm /= divisor * scale
    finite = math.isfinite(total) and math.isfinite(norm)
    if finite:
        shorten = min(1.0, rules.clip / (norm + 1e-6)) if rules.clip else 1.0
        # one division, after all micro-batches: accumulating does not change the gradient
        torch._foreach_mul_(gradients, shorten / (divisor * scale))  # pyright: ignore[reportPrivateImportUsage]
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("share", 1.0)
        optimizer.step()
    progress.scale, progress.scale_steps = rules.scaling.after(scale, progress.scale_steps, finite)
    report = StepReport(progress.step + 1, total / divisor, norm, lr, int(count), not finite, int(retries))
    return _account(progress, report, rules)


def _gradient(
    model: nn.Module,
    loss: Loss,
    parts: Sequence[MicroBatch],
    optimizer: Optimizer,
    step: int,
    scale: float,
    rules: StepRules,
) -> Tensor:
    """Accumulate the gradient of ``scale`` times the summed loss over all ``parts``; return that sum, the number of
    tokens, and how many attempts failed."""
    retries = 0
    while True:
        sums, failed = [], None
        for part in parts:
            try:
                sums.append(_learn(model, loss, part, step, scale, rules))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = part
                break
        if failed is None:
            total = torch.stack(sums).sum(0)
            return torch.cat([total, total.new_tensor([retries])])
        optimizer.zero_grad(set_to_none=True)  # not in the handler: the error holds activations
        if next(tensors(failed.batch)).is_cuda:
            torch.cuda.empty_cache()
        parts, retries = rules.on_memory.smaller(parts, failed), retries + 1


def _learn(model: nn.Module, loss: Loss, part: MicroBatch, step: int, scale: float, rules: StepRules) -> Tensor:
    """Add ``scale`` times the gradient of a part; return its summed loss and the number of tokens summed over."""
    torch.manual_seed(seed_of(rules.seed, step, *part.position))
    with rules.precision():
        summed, count = loss(model, part.batch)
    summed.backward(torch.full_like(summed, part.weight * scale))
    return torch.stack([summed.detach().float(), count.float()]) * part.weight


def _account(progress: LoopProgress, report: StepReport, rules: StepRules) -> StepReport:
    progress.step = report.step
    progress.tokens += 0 if report.skipped else report.tokens
    progress.skipped += report.skipped
    progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if report.skipped else 0
    if progress.skipped_in_a_row >= rules.give_up_after:
        raise Diverged(
            f"step {report.step}: loss {report.loss:.4g} and gradient norm {report.grad_norm:.4g} are not finite, "
            f"for {progress.skipped_in_a_row} steps in a row: lower the learning rate, lengthen the warm-up, "
            "or train in float32"
        )
    return report


def train(
    model: nn.Module,
    loss: Loss,
    parts: Callable[[int], Sequence[MicroBatch]],
    optimizer: Optimizer,
    progress: LoopProgress,
    *,
    lr: Callable[[int], float],
    rules: StepRules,
) -> Iterator[StepReport]:
    """Yield a report for each step, without end. The caller logs, evaluates, saves and stops; this only trains.

    ``parts(i)`` returns what step ``i``, counted from 0, learns from. It is a function of ``i`` alone, so resuming
    needs no data cursor. ``lr`` takes the step counted from 1, as schedules are written.
    """
    while True:
        step = progress.step
        yield train_step(model, loss, parts(step), optimizer, progress, lr=lr(step + 1), rules=rules)
