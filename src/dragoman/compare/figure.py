"""Figures of one run, and what the function that measures them is given.

N examples of a test set, Q counts of each.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.evaluate.metrics import Metric, samples
from dragoman.train.recipe import RunConfig


@dataclass(frozen=True)
class FigureCurve:
    """A figure at several places, such as a score by source length."""

    x_title: str
    x: tuple[str | float, ...]
    """Places: numbers, or names such as ``1 to 5``."""
    y: tuple[float | None, ...]
    """Value at each place; None where there is none."""


@dataclass(frozen=True)
class Figure:
    """One number of one run."""

    value: float
    higher_is_better: bool | None = True
    """None where neither is better."""
    unit: str = ""
    signature: str = ""
    """Settings that others need to compute the same: sacreBLEU's signature, or words."""
    curve: FigureCurve | None = None
    resampled: tuple[float, ...] | None = None
    """Values on test sets whose examples are drawn again with replacement, the same draws for all runs; None where the
    figure is not a score of a test set of two examples or more."""
    examples: int = 0
    """Examples of that test set; 0 where there is none."""
    exact: bool = False
    """True where the value follows from the contestant alone, as of a formula or of memory that is counted: nothing
    that is drawn can change it."""

    @property
    def finite(self) -> bool:
        """True where the value is a finite number, and so are those on resampled test sets."""
        return all(map(math.isfinite, (self.value, *(self.resampled or ()))))


@dataclass(frozen=True)
class StudySubject:
    """A contestant with one seed, as a measure is given it."""

    contestant: str
    seed: int
    run: Path | None
    """Directory of the finished run; None in a study that trains nothing."""
    checkpoint: str
    """Weights to measure: ``best`` or ``last``."""
    cfg: RunConfig | None
    """Complete configuration of the run."""
    folder: Path
    """Folder for files that the measure writes or reads."""
    size: str
    """Size of the study: toy, small or large."""


Measure = Callable[..., Mapping[str, Figure]]
"""Function of a ``StudySubject`` and of settings by keyword, each with a default; returns figures by name."""


class RatioOfCounts(Metric):
    """Sum of the first count over that of the second, times a scale."""

    def __init__(self, name: str = "mean", scale: float = 1.0, *, higher_is_better: bool = True, signature: str = ""):
        self.name, self.scale = name, scale
        self.higher_is_better, self.signature = higher_is_better, signature

    def counts(self, outputs: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        raise NotImplementedError("counted by whoever uses it")

    def value(self, counts: np.ndarray) -> float:
        return self.scale * float(counts[0] / max(counts[1], 1e-12))


def scored(metric: Metric, counts: np.ndarray, **more: Any) -> Figure:
    """Return the figure of a metric for counts (N, Q) or (N, ..., Q), with its values on resampled test sets.

    A single example cannot be drawn in another way, so that its figure has no such values.
    """
    rows = len(counts)
    drawn = None
    if rows > 1:
        drawn = tuple(metric.value(np.tensordot(sample, counts, axes=1)) for sample in samples(rows))
    figure = Figure(
        metric.value(counts.sum(axis=0)),
        higher_is_better=metric.higher_is_better,
        signature=metric.signature,
        resampled=drawn,
        examples=rows,
    )
    return replace(figure, **more)


def mean_of(values: Sequence[float], **more: Any) -> Figure:
    """Return the mean of values (N,) of single examples as a figure.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("no values to take the mean of")
    counts = np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(values))])
    return scored(RatioOfCounts(), counts, **more)
