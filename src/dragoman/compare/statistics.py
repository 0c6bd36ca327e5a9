"""Intervals and tests for a few paired measurements: Student's t, Welch and Satterthwaite, Holm.

n values, nu degrees of freedom.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, variance

LEVEL = 0.05
"""Probability of a difference where there is none, of all comparisons of a study together (Holm)."""
POWER = 0.8
"""Share of repeated studies in which a detectable difference is shown."""
MUCH = 2.0
"""Ratio of a pair's own standard error to the pooled one beyond which the pair keeps its own."""
_MOST_SIGNS = 40
"""Number of equal signs from which p is 0 for all purposes, and is no longer told from it by floats."""
_MOST_TERMS = 1000
_BISECTIONS = 60
_NORMAL = 1e6
"""Degrees of freedom from which t is the normal distribution to six digits, and its own formula loses as many."""


# ---- Student's t ----------------------------------------------------------------------------------


def t_probability(t: float, nu: float) -> float:
    """Return P(T <= t) for nu degrees of freedom (Abramowitz & Stegun, 26.7.1); of very many, by the normal one."""
    if nu > _NORMAL:
        return 0.5 * math.erfc(-t / math.sqrt(2))
    tail = 0.5 * _incomplete_beta(nu / 2, 0.5, nu / (nu + t * t)) if math.isfinite(t) else 0.0
    return 1 - tail if t > 0 else tail


@lru_cache(maxsize=256)
def t_quantile(probability: float, nu: float) -> float:
    """Return the t below which T is with this probability, by bisection."""
    low, high = -1.0, 1.0
    while t_probability(low, nu) > probability:
        low *= 2
    while t_probability(high, nu) < probability:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, nu) < probability else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function by its continued fraction (Abramowitz & Stegun, 26.5.8)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    ) / a  # fmt: skip
    return front / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """Return 1 + d1/(1 + d2/(1 + ...)), forwards until it no longer changes (Lentz's method)."""
    value, c, d = 1.0, 1.0, 0.0
    for i in range(1, _MOST_TERMS):
        m = i // 2
        if i % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / (1 + term * d), 1 + term / c
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


# ---- estimates ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean, and how well it is known."""

    mean: float
    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom of the standard error."""

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval that holds the true mean with probability 1 - level."""
        half = t_quantile(1 - level / 2, self.freedom) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Probability of a mean as far from 0 by chance alone, in either direction."""
        if not self.error:
            return 0.0 if self.mean else 1.0
        return 2 * t_probability(-abs(self.mean) / self.error, self.freedom)

    def detectable(self, level: float = LEVEL) -> float:
        """Return the true mean that ``POWER`` of such studies would tell from 0."""
        if not self.error:
            return 0.0
        return (t_quantile(1 - level / 2, self.freedom) + t_quantile(POWER, self.freedom)) * self.error


def as_sign_test(mean: float, values: int) -> Estimate:
    """Return the estimate of a mean that is as certain as n values (two or more) of its sign make it: p is 2 / 2^n."""
    if not mean:
        return Estimate(mean, 0.0, values - 1)
    n = min(values, _MOST_SIGNS)
    return Estimate(mean, abs(mean) / t_quantile(1 - 0.5**n, n - 1), n - 1)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of two or more values, and its error as their spread tells.

    Raises:
        ValueError: fewer than two values: they tell nothing of their spread.
    """
    if len(values) < 2:
        raise ValueError("an interval needs two values or more")
    return Estimate(fmean(values), math.sqrt(variance(values) / len(values)), len(values) - 1)


def pooled_error(table: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the standard error of the difference of two rows' means, and its degrees of freedom, from all rows.

    Rows are contestants and columns seeds. The noise is what neither explains: the residual of a two-way layout (as in
    an analysis of variance with repeated measures), taken to be the same for all contestants. For two rows it is the
    paired t test's own error.

    Raises:
        ValueError: fewer than two rows or columns.
    """
    rows, columns = len(table), len(table[0]) if table else 0
    if rows < 2 or columns < 2:
        raise ValueError("pooling needs two contestants and two seeds or more")
    row_means, column_means = [fmean(row) for row in table], [fmean(column) for column in zip(*table, strict=True)]
    mean, freedom = fmean(row_means), (rows - 1) * (columns - 1)
    residual = sum(
        (value - row_means[i] - column_means[j] + mean) ** 2
        for i, row in enumerate(table)
        for j, value in enumerate(row)
    )
    return math.sqrt(2 * residual / freedom / columns), freedom


def with_pooled(estimate: Estimate, table: Sequence[Sequence[float]]) -> Estimate:
    """Return the estimate of the difference of two rows of a table with the error of all rows (``pooled_error``); its
    own where that is much larger."""
    error, freedom = pooled_error(table)
    return estimate if estimate.error > MUCH * error else Estimate(estimate.mean, error, freedom)


def with_error(estimate: Estimate, error: float) -> Estimate:
    """Return the estimate with a second, independent error that is known well: Satterthwaite's degrees of freedom."""
    both = estimate.error**2 + error**2
    if not estimate.error:
        return Estimate(estimate.mean, error, math.inf) if error else estimate
    return Estimate(estimate.mean, math.sqrt(both), estimate.freedom * both**2 / estimate.error**4)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979), in the order given."""
    adjusted, most = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        most = max(most, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = most
    return adjusted
