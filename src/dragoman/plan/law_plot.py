"""Picture of a scaling law: the loss of each run over its training FLOPs, and the law through runs of equal size."""

from dragoman.plan.laws import LawFit
from dragoman.plan.plot import Axis, Point, line_chart

STEPS = 40
"""Points of a line."""


def draw(fitted: LawFit) -> str:
    """Return an SVG document: a line for each number of parameters, and the best loss of each budget."""
    sizes = sorted({run.parameters for run in fitted.runs})
    budgets = [run.flops for run in fitted.runs]
    low, high = min(budgets), 3 * max(budgets)
    lines: dict[str, list[Point]] = {}
    measured: dict[str, list[Point]] = {}
    for size in sizes:
        runs = [run for run in fitted.runs if run.parameters == size]
        tokens = [run.tokens for run in runs]
        name = f"N = {size / 1e6:.2g} million"
        lines[name] = [(6 * size * d, fitted.law.loss(size, d)) for d in _between(min(tokens) / 1.5, max(tokens) * 1.5)]
        measured[name] = [(run.flops, run.loss) for run in runs]
    lines["best split"] = [(flops, fitted.law.loss(*fitted.law.split(flops))) for flops in _between(low, high)]
    x, y = Axis("training FLOPs, 6 N D", "{:.1e}".format), Axis("loss, nats a token", "{:.2f}".format)
    return line_chart("Loss by training FLOPs", lines, x, y, scattered=measured)


def _between(low: float, high: float) -> list[float]:
    return [low * (high / low) ** (i / STEPS) for i in range(STEPS + 1)]
