"""One step of learning, and the loop that repeats it.

Everything random in a step is drawn from a generator seeded with (seed, step), and the data is a function of the step.
So a run that starts again at step n goes on exactly as it would have, and needs to remember weights, optimizer and n.
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

Loss = Callable[[Any, Any], tuple[Tensor, Tensor]]
"""(model, batch) -> (summed loss, number of tokens it was summed over)."""


class Diverged(UserError, ArithmeticError):
    """Step after step without a finite gradient: going on would only burn time."""


@dataclass
class Progress:
    """All that a loop knows besides weights and optimizer."""

    step: int = 0
    """Steps made, skipped ones included: they use up their data."""
    tokens: int = 0
    """Target tokens learned from."""
    skipped: int = 0
    """Steps that changed nothing because loss or gradient was not finite."""
    skipped_in_a_row: int = 0


@dataclass(frozen=True)
class StepReport:
    step: int
    """Counted from 1."""
    loss: float
    """Mean over the tokens of the whole step, not a mean of micro-batch means."""
    grad_norm: float
    """Before clipping."""
    lr: float
    tokens: int
    """Target tokens in the step."""
    skipped: bool
    """Loss or gradient was not finite, so nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What stays the same from step to step."""

    seed: int
    clip: float | None = 1.0
    """Longest gradient: a longer one is shortened to this. None for no limit."""
    give_up_after: int = 10
    """Steps in a row without a finite gradient after which there is no point in going on."""
    precision: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)
    """Entered around each loss: autocast, or nothing."""


def seed_of(seed: int, step: int) -> int:
    """A seed for one step, unlike those of its neighbours in every bit."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest(), "little")


def train_step(
    model: nn.Module,
    loss: Loss,
    micro_batches: Sequence[Any],
    optimizer: Optimizer,
    progress: Progress,
    *,
    lr: float,
    rules: Rules,
) -> StepReport:
    """Learn from ``micro_batches`` as if they were one batch.

    Raises:
        Diverged: this is the last of ``rules.give_up_after`` steps in a row without a finite gradient.
    """
    torch.manual_seed(seed_of(rules.seed, progress.step))
    optimizer.zero_grad(set_to_none=True)
    sums = []
    for batch in micro_batches:
        with rules.precision():
            summed, count = loss(model, batch)
        summed.backward()
        sums.append(torch.stack([summed.detach().float(), count.float()]))
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    total, count, norm = torch.stack([*torch.stack(sums).sum(0), norm]).tolist()  # the step's only wait for a GPU
    count = max(count, 1.0)  # rows of nothing but prompts teach nothing
    norm /= count
    finite = math.isfinite(total) and math.isfinite(norm)
    if finite:
        shorten = min(1.0, rules.clip / (norm + 1e-6)) if rules.clip else 1.0
        # one division, after all micro-batches: accumulating does not change the gradient
        torch._foreach_mul_(gradients, shorten / count)  # pyright: ignore[reportPrivateImportUsage]
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    return _account(progress, StepReport(progress.step + 1, total / count, norm, lr, int(count), not finite), rules)


def _account(progress: Progress, report: StepReport, rules: Rules) -> StepReport:
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
    batches: Callable[[int], Sequence[Any]],
    optimizer: Optimizer,
    progress: Progress,
    *,
    lr: Callable[[int], float],
    rules: Rules,
) -> Iterator[StepReport]:
    """A report for each step, without end. The caller logs, evaluates, saves and stops; this only learns.

    ``batches(i)``, the micro-batches of a step counted from 0, is a function of ``i`` alone, so resuming needs no data
    cursor. ``lr`` takes the step counted from 1, as schedules are written.
    """
    while True:
        step = progress.step
        yield train_step(model, loss, batches(step), optimizer, progress, lr=lr(step + 1), rules=rules)
