"""Prediction of a run in three lines: its memory, its time, and what limits it."""

from typing import TYPE_CHECKING

from dragoman.cli.plan_numbers import short
from dragoman.cli.terminal import duration

if TYPE_CHECKING:
    from dragoman.plan.prediction import RunPrediction
    from dragoman.train.budget import Budget

LIMITS = {
    "products": "matrix products",
    "other operations": "passes over memory",
    "overhead": "calls in Python and autograd: larger batches or a larger model cost little more",
    "new shapes": "code for products of new shapes",
    "update": "the optimizer's update: larger batches cost less a token",
}
"""Names of what a step's time goes into, for people."""
OF_MEMORY = "weights", "gradients", "optimizer", "averages", "activations", "logits"
BUSY = 1.5
"""Time that passes for a second of the processor, from which a machine is called busy."""


def three_lines(prediction: "RunPrediction", budget: "Budget", advice: str) -> list[str]:
    """Return the lines that ``dragoman train`` prints before its first step."""
    return [_memory(prediction), _time(prediction, budget), _limit(prediction, advice)]


def _memory(p: "RunPrediction") -> str:
    from dragoman.plan.measured import size

    parts = ", ".join(f"{name} {size(p.parts[name])}" for name in OF_MEMORY if p.parts.get(name))
    return f"predicted memory: {size(p.memory)} ({parts}) of {size(p.available)} that are free"


def _time(p: "RunPrediction", budget: "Budget") -> str:
    whole = f"{p.steps:,} steps, {short(p.tokens)} tokens, {_epochs(p.epochs)} epochs"
    amount = f"{p.left:,} steps are left; in all {whole}" if p.made else whole
    step = f"{_seconds(p.step_seconds)} a step"
    if budget.seconds is None:
        return f"predicted time: {duration(p.seconds)} at {step}: {amount}"
    return f"predicted time: {amount} in {budget.seconds / 60:g} minutes, at {step}"


def _limit(p: "RunPrediction", advice: str) -> str:
    name = max(p.shares, key=p.shares.__getitem__)
    busy = p.step_seconds / p.cpu_seconds
    load = f"; other programs run here: {busy:.1f} times as long as alone" if busy > BUSY else ""
    fits = "" if p.fits else "memory will not suffice; "
    limit = f"limited by {LIMITS[name]} ({100 * p.shares[name]:.0f}% of a step)"
    return f"{fits}{limit}{load}" + (f"; {advice}" if advice else "")


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _epochs(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
