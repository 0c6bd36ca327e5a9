"""Faithfulness: which attribution to believe on this model, by taking away what it calls important.

Deletion takes inputs away from the most important on: the faster the answer's log-probability falls, the better the
attribution knew. Insertion starts from nothing and puts them back: the faster it rises, the better (Petsiuk et al.,
arXiv:1806.07421). A random order is the mark that any attribution must beat.

S inputs, K steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dragoman.inspect.attribution import Baseline, ExplainedAnswer

POINTS = 20
"""Most steps of a curve."""
RANDOM = "random order"
DRAWS = 8
"""Random orders that their curve is the mean of."""


@dataclass(frozen=True)
class FaithfulnessCurve:
    """Log-probability of the answer as inputs are taken away, and as they are put back."""

    method: str
    share: Float[np.ndarray, " K"]
    """Share of the inputs that were taken away, or put back: 0 to 1."""
    deletion: Float[np.ndarray, " K"]
    insertion: Float[np.ndarray, " K"]

    @property
    def deletion_area(self) -> float:
        """Mean log-probability during deletion; lower is better."""
        return float(np.trapezoid(self.deletion, self.share))

    @property
    def insertion_area(self) -> float:
        """Mean log-probability during insertion; higher is better."""
        return float(np.trapezoid(self.insertion, self.share))

    @property
    def score(self) -> float:
        """Insertion minus deletion, in nats; higher is more faithful."""
        return self.insertion_area - self.deletion_area


def faithfulness(
    answer: ExplainedAnswer,
    importance: Mapping[str, Float[np.ndarray, " S"]],
    *,
    baseline: Baseline = "mean",
    points: int = POINTS,
    seed: int = 0,
) -> list[FaithfulnessCurve]:
    """Return the curves of each attribution, and of random orders, the most faithful first.

    Args:
        answer: the answer that was explained.
        importance: by method, the contribution of each input to the whole answer.
        baseline: what stands for an input that is taken away.
        points: most steps of a curve.
        seed: of the random orders.
    """
    allowed = np.array(answer.occludable)
    places = np.unique(np.linspace(0, len(allowed), min(len(allowed), points) + 1).round().astype(int))
    orders = {name: [allowed[np.argsort(-values[allowed], kind="stable")]] for name, values in importance.items()}
    draw = np.random.default_rng(seed)
    orders[RANDOM] = [draw.permutation(allowed) for _ in range(DRAWS)]
    replaced = answer.baseline(baseline, seed)
    curves = []
    for name, several in orders.items():
        gone, back = [], []
        for order in several:
            taken = np.zeros((len(places), answer.count), bool)
            for row, number in enumerate(places):
                taken[row, order[:number]] = True
            gone.append(answer.without(taken, replaced).sum(1))
            kept = np.zeros_like(taken)
            kept[:, allowed] = ~taken[:, allowed]
            back.append(answer.without(kept, replaced).sum(1))
        share = places / max(1, len(allowed))
        curves.append(FaithfulnessCurve(name, share, np.mean(gone, axis=0), np.mean(back, axis=0)))
    return sorted(curves, key=lambda curve: -curve.score)
