"""Risk-coverage curves: how many errors are left when the least certain answers go to review.

N answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class RiskCoverage:
    """Errors among the answers that are kept, for each number of them (El-Yaniv & Wiener 2010; Geifman & El-Yaniv
    2017, arXiv:1705.08500)."""

    coverage: Float[np.ndarray, " N"]
    """Part of the answers that is kept, the most certain first; ascending to 1."""
    risk: Float[np.ndarray, " N"]
    """Mean error of these."""

    @property
    def area(self) -> float:
        """Area under the curve: mean risk over all coverages. Lower is better; of random certainty it is the mean
        error."""
        return float(self.risk.mean())

    def risk_at(self, coverage: float) -> float:
        """Return the mean error of this part of the answers, rounded to whole answers."""
        return float(self.risk[max(1, round(coverage * len(self.risk))) - 1])


def risk_coverage(certainty: Sequence[float] | np.ndarray, error: Sequence[float] | np.ndarray) -> RiskCoverage:
    """Return the curve of answers with a certainty and an error each; equally certain ones share their mean error."""
    sure, wrong = np.asarray(certainty, np.float64), np.asarray(error, np.float64)
    order = np.argsort(-sure, kind="stable")
    _, start, counts = np.unique(-sure[order], return_index=True, return_counts=True)
    ordered = np.concatenate(
        [np.full(n, wrong[order][i : i + n].mean()) for i, n in zip(start, counts, strict=True)] or [wrong]
    )
    kept = np.arange(1, len(ordered) + 1)
    return RiskCoverage(kept / len(ordered), np.cumsum(ordered) / kept)
