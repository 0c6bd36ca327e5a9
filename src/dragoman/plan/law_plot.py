"""Picture of a scaling law: the loss of each run over its training FLOPs, and the law through runs of equal size."""

from dragoman.plan.curves import Curve, draw_curves
from dragoman.plan.laws import LawFit

STEPS = 40
"""Points of a line."""


def draw(fitted: LawFit) -> str:
    """Return an SVG document: a line for each number of parameters, and the best loss of each budget."""
    sizes = sorted({run.parameters for run in fitted.runs})
    budgets = [run.flops for run in fitted.runs]
    low, high = min(budgets), 3 * max(budgets)
    curves = []
    for i, size in enumerate(sizes):
        runs = [run for run in fitted.runs if run.parameters == size]
        tokens = [run.tokens for run in runs]
        span = _between(min(tokens) / 1.5, max(tokens) * 1.5)
        line = [(6 * size * d, fitted.law.loss(size, d)) for d in span]
        curves.append(Curve(f"{size:,.0f} parameters", line, colour=i))
        curves.append(Curve("", [(run.flops, run.loss) for run in runs], dots=True, colour=i))
    best = [(flops, fitted.law.loss(*fitted.law.split(flops))) for flops in _between(low, high)]
    curves.append(Curve("best split", best, colour=len(sizes) + 8))
    return draw_curves("Loss by training FLOPs", "training FLOPs (6 N D)", "loss, nats a token", curves)


def _between(low: float, high: float) -> list[float]:
    return [low * (high / low) ** (i / STEPS) for i in range(STEPS + 1)]
