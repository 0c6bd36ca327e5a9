"""Curves of ``dragoman plan --plot``."""

from pathlib import Path
from typing import Any

from dragoman.cli.plan_counted import PlanOptions, TrainingPlan, plan_training
from dragoman.cli.plan_numbers import size
from dragoman.cli.plan_served import ServingPlan, plan_serving
from dragoman.cli.plan_subject import PlanSubject
from dragoman.cli.plan_table import MEMORY

DRAWN = ("activations", "optimizer", "allowance")
"""Parts of the memory of training that are drawn beside the total."""
POINTS = 5
"""Points of a curve: each doubles the one before."""


def plot_training(subject: PlanSubject, question: PlanOptions, found: TrainingPlan, path: Path) -> None:
    """Draw the memory of training by the number of texts in a batch."""
    first = max(1, found.rows // 2 ** (POINTS - 2))
    plans = [plan_training(subject, question, rows=first * 2**i) for i in range(POINTS)]
    lines = {"total": [(plan.batch_tokens, plan.memory.total) for plan in plans]}
    for part in DRAWN:
        points = [(plan.batch_tokens, getattr(plan.memory, part)) for plan in plans]
        if all(value for _, value in points):
            lines[MEMORY[part]] = points
    title = f"{subject.name}: memory of training, {found.length:,} tokens a text"
    _write(path, title, lines, "tokens in a batch", found.cluster)


def plot_serving(subject: PlanSubject, serving: dict[str, Any], found: ServingPlan, path: Path) -> None:
    """Draw the memory of serving by the tokens of each text."""
    contexts = [max(2, found.context >> i) for i in reversed(range(POINTS))]
    asked: list[dict[str, Any]] = [serving | {"context": context} for context in dict.fromkeys(contexts)]
    plans = [plan_serving(subject, **each) for each in asked]
    lines = {
        "total": [(plan.context, plan.count.total) for plan in plans],
        "weights": [(plan.context, plan.count.weights) for plan in plans],
        "cache": [(plan.context, plan.count.cache) for plan in plans],
    }
    _write(
        path, f"{subject.name}: memory of serving, {found.users:,} users", lines, "tokens of each text", found.cluster
    )


def _write(path: Path, title: str, lines: dict[str, Any], across: str, cluster: Any) -> None:
    from dragoman.output_file import open_output
    from dragoman.plan.plot import Axis, line_chart

    marks = {f"memory of one {cluster.device.title}": float(cluster.device.memory)} if cluster else {}
    text = line_chart(title, lines, Axis(across, "{:,.0f}".format), Axis("bytes", size), marks=marks)
    with open_output(path) as file:
        file.write(text.encode())
