"""Verdicts on pairs of contestants, in numbers and in words.

The interval of a difference is over seeds, which are the same for all (paired, Student's t). Two or three seeds tell
little of their own spread, so that of all contestants is pooled; a pair whose differences spread much more keeps its
own. Where a figure is a score of a test set, the error of drawing its examples is added, by a paired bootstrap of the
means over seeds. Where all seeds show the same, only a figure that is exact by nature is certain; any other may have a
coarse scale, and its seeds and examples tell what a sign test of them does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from dragoman.compare.figure import Figure
from dragoman.compare.statistics import (
    LEVEL,
    Estimate,
    as_sign_test,
    holm,
    over_seeds,
    with_error,
    with_pooled,
)

_SAME = 1e-9
"""Relative width of an interval that is rounding alone."""
ByRun = Mapping[tuple[str, int], Figure]
"""A figure by contestant and seed, of those runs that have it."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """Comparison of two contestants by one figure."""

    figure: str
    a: str
    b: str
    difference: float | None
    """Mean of a - b over the seeds that both finished; None where there are too few."""
    interval: Interval | None
    """95% interval, over seeds and (for scores of a test set) examples."""
    over_seeds: Interval | None
    """95% interval over seeds alone."""
    over_examples: Interval | None
    """95% interval over examples of the test set alone; None where the figure is none."""
    p: float | None
    p_adjusted: float | None
    """Adjusted for the number of comparisons of the study (Holm)."""
    detectable: float | None
    """Difference that four of five such studies would show."""
    shown: Literal["a", "b", "neither"]
    """Contestant that was shown to be better (or higher, where neither is better)."""
    words: str

    def record(self) -> dict[str, Any]:
        """Return the verdict as plain data."""
        return asdict(self)


def verdicts_of(
    figures: Mapping[str, ByRun], contestants: Sequence[str], against: str | None, level: float = LEVEL
) -> list[Verdict]:
    """Return the verdicts on all pairs, or on pairs with ``against`` alone, by each of the figures."""
    pairs = list(combinations(contestants, 2))
    if against is not None:
        pairs = [(against, one) for one in contestants if one != against]
    made = [_compared(name, runs, a, b, contestants) for name, runs in figures.items() for a, b in pairs]
    known = [i for i, (verdict, _, _) in enumerate(made) if verdict.p is not None]
    adjusted = dict(zip(known, holm([made[i][0].p or 0.0 for i in known]), strict=True))
    units = {name: next((figure.unit for figure in runs.values()), "") for name, runs in figures.items()}
    return [
        _judged(verdict, estimate, better, adjusted.get(i), len(known), level, units[verdict.figure])
        for i, (verdict, estimate, better) in enumerate(made)
    ]


def _compared(
    name: str, runs: ByRun, a: str, b: str, contestants: Sequence[str]
) -> tuple[Verdict, Estimate | None, bool | None]:
    seeds = [seed for contestant, seed in runs if contestant == a and (b, seed) in runs]
    better = next((figure.higher_is_better for figure in runs.values()), True)
    empty = Verdict(name, a, b, None, None, None, None, None, None, None, "neither", "")
    if len(seeds) < 2:
        finished = {one: sum(contestant == one for contestant, _ in runs) for one in (a, b)}
        counts = ", ".join(f"{one} has it from {count}" for one, count in finished.items())
        return replace(empty, words=f"{name}: {a} and {b} cannot be compared: {counts} of the seeds"), None, better
    estimate = over_seeds([runs[a, seed].value - runs[b, seed].value for seed in seeds])
    estimate = _with_pooled(estimate, runs, contestants, seeds)
    examples, alone = None, estimate.interval()
    drawn = [_difference(runs[a, seed], runs[b, seed]) for seed in seeds]
    if all(one is not None for one in drawn):
        mean = np.mean(np.array(drawn), axis=0)
        low, high = np.percentile(mean, [2.5, 97.5])
        examples = float(low), float(high)
        estimate = with_error(estimate, float(mean.std(ddof=1)))
    estimate = _without_spread(estimate, [runs[one, seed] for one in (a, b) for seed in seeds], len(seeds))
    found = replace(
        empty,
        difference=estimate.mean,
        interval=estimate.interval(),
        over_seeds=alone,
        over_examples=examples,
        p=estimate.p,
    )
    return found, estimate, better


def _with_pooled(estimate: Estimate, runs: ByRun, contestants: Sequence[str], seeds: Sequence[int]) -> Estimate:
    """Return the estimate with the error of all contestants that have the figure from these seeds."""
    rows = [[runs[one, seed].value for seed in seeds] for one in contestants if all((one, s) in runs for s in seeds)]
    return with_pooled(estimate, rows)


def _without_spread(estimate: Estimate, figures: Sequence[Figure], seeds: int) -> Estimate:
    """Return the estimate, with the error of a sign test if there is no spread though the figures are not exact.

    No spread over examples means that all of them differ in the same way, so that their signs count, as those of seeds.
    """
    rounding = _SAME * max(abs(figure.value) for figure in figures)
    if estimate.error > rounding:
        return estimate
    estimate = Estimate(estimate.mean if abs(estimate.mean) > rounding else 0.0, 0.0, estimate.freedom)
    if all(figure.exact for figure in figures):
        return estimate
    return as_sign_test(estimate.mean, max(seeds, min(figure.examples for figure in figures)))


def _difference(one: Figure, other: Figure) -> np.ndarray | None:
    if one.resampled is None or other.resampled is None or len(one.resampled) != len(other.resampled):
        return None
    return np.array(one.resampled) - np.array(other.resampled)


def _judged(
    verdict: Verdict,
    estimate: Estimate | None,
    better: bool | None,
    adjusted: float | None,
    number: int,
    level: float,
    unit: str,
) -> Verdict:
    if estimate is None or adjusted is None:
        return verdict
    higher = "a" if estimate.mean > 0 else "b"
    shown = adjusted < level and estimate.mean != 0
    winner = higher if better in (True, None) else ("b" if higher == "a" else "a")
    found = replace(verdict, p_adjusted=adjusted, detectable=estimate.detectable(level / max(1, number)))
    if shown:
        found = replace(found, shown=winner)
    return replace(found, words=_words(found, better, number, "points" if unit == "%" else unit))


def _words(verdict: Verdict, better: bool | None, number: int, unit: str) -> str:
    assert verdict.difference is not None and verdict.interval is not None and verdict.detectable is not None
    low, high = verdict.interval
    half = (high - low) / 2
    digits = decimals(half if half > _SAME * abs(verdict.difference) else verdict.difference)
    if verdict.shown == "neither":
        return _not_shown(verdict, digits, number, unit)
    first, second = (verdict.a, verdict.b) if verdict.shown == "a" else (verdict.b, verdict.a)
    ends = sorted((abs(low), abs(high)))
    how = "higher" if better is None else "better"
    size = f"{abs(verdict.difference):,.{digits}f} " + (f"{unit} in {verdict.figure}" if unit else verdict.figure)
    interval = f"95% interval {ends[0]:,.{digits}f} to {ends[1]:,.{digits}f}"
    if high - low <= _SAME * abs(verdict.difference):
        interval = "with every seed the same"
    return f"{first} is {how} than {second} by {size}, {interval}"


def _not_shown(verdict: Verdict, digits: int, number: int, unit: str) -> str:
    assert verdict.interval is not None and verdict.detectable is not None
    low, high = verdict.interval
    pair = f"between {verdict.a} and {verdict.b}"
    if low == high == 0:
        return f"no difference {pair} in {verdict.figure}: it is the same with every seed"
    assert verdict.difference is not None and verdict.over_seeds is not None
    corrected = f" once corrected for {number} comparisons" if low > 0 or high < 0 else ""
    spread = verdict.over_seeds[1] - verdict.over_seeds[0]
    same = spread <= _SAME * abs(verdict.difference)
    coarse = ", as every seed differs by the same, and may do so on a coarse scale" if same else ""
    least = f"{verdict.detectable:,.{digits}f}" + (f" {unit}" if unit else "")
    return f"no difference {pair} in {verdict.figure} was shown{corrected}; one of {least} could have been{coarse}"


def decimals(size: float) -> int:
    """Return the decimals that show two digits of a number."""
    return 0 if not size or not math.isfinite(size) else min(6, max(0, 1 - math.floor(math.log10(abs(size)))))
