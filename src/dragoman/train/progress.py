"""Progress of a run besides tensors: small enough to read in the checkpoint's ``progress.json``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dragoman.train import loop
from dragoman.train.budget import Budget, Course
from dragoman.train.forecast import Forecast
from dragoman.train.stopwatch import Lap


@dataclass
class MetricsWindow:
    """Sums over the steps since the last report."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    tokens: int = 0
    """Target tokens learned from."""
    real: int = 0
    """Source and target tokens, padding not counted."""
    cells: int = 0
    """Source and target positions, padding counted."""
    seconds: float = 0.0

    def add(self, report: loop.StepReport) -> None:
        """Add a step that was not skipped."""
        self.steps, self.tokens = self.steps + 1, self.tokens + report.tokens
        self.loss, self.grad_norm = self.loss + report.loss * report.tokens, self.grad_norm + report.grad_norm

    @property
    def mean_loss(self) -> float | None:
        return self.loss / self.tokens if self.tokens else None

    @property
    def mean_grad_norm(self) -> float | None:
        return self.grad_norm / self.steps if self.steps else None


@dataclass
class RunProgress(loop.LoopProgress):
    """Progress that every checkpoint holds: everything a run knows besides weights and optimizer state."""

    total: int | None = None
    """Steps of the whole run; None while not yet known."""
    epochs: float | None = None
    """Passes over the text; None where a version that did not count them wrote the checkpoint, or before the first
    step."""
    seconds: float = 0.0
    """Time spent learning, in seconds."""
    cpu_seconds: float = 0.0
    """Processor time spent learning, of all threads of the first process."""
    course: Course | None = None
    """How a budget of passes is spent, where the size of batches has changed meanwhile."""
    forecast: Forecast | None = None
    """Forecast that ``total`` comes from, where the budget is a time."""
    validated: int = 0
    """Step of the last validation."""
    best_loss: float | None = None
    """Lowest cost so far: the loss, or whatever else the best checkpoint is chosen by."""
    best_step: int | None = None
    stale: int = 0
    """Validations since the best one."""
    sources: dict[str, int] = field(default_factory=dict)
    """Tokens of each source, on either side, read since the run began."""
    window: MetricsWindow = field(default_factory=MetricsWindow)

    @classmethod
    def beginning(cls, budget: Budget, steps_per_epoch: int) -> "RunProgress":
        """Return the progress of a run before its first step."""
        progress = cls()
        progress.set_length(budget, steps_per_epoch)
        return progress

    def set_length(self, budget: Budget, steps_per_epoch: int) -> None:
        """Take the length of the run from its budget: the steps made, and what is left at the present size of
        batches."""
        made = steps_per_epoch, self.step, self.passes(steps_per_epoch)
        self.total, self.course, self.forecast = budget.total(*made), budget.course(*made), None

    def passes(self, steps_per_epoch: int) -> float:
        """Return the passes over the text so far."""
        return self.step / steps_per_epoch if self.epochs is None else self.epochs

    def spent(self, step: int) -> float:
        """Return the fraction of the budget that is spent after ``step``; 0 while the length is not known."""
        if course := self._course:
            return course.spent(step)
        return min(1.0, step / self.total) if self.total else 0.0

    def horizon(self, step: int) -> float | None:
        """Return the length of the run that a schedule uses at ``step``; None while it is not known."""
        return course.horizon(step) if (course := self._course) else self.total

    @property
    def _course(self) -> Course | None:
        return self.forecast.course if self.forecast else self.course

    @property
    def seconds_left(self) -> float | None:
        """Return the time that the remaining steps will take; None while it is not known."""
        if self.total is None or not self.step:
            return None
        if self.forecast:
            return max(0.0, self.forecast.budget - self.seconds)
        return (self.total - self.step) * self.seconds / self.step

    def spend(self, lap: Lap) -> None:
        self.seconds, self.cpu_seconds = self.seconds + lap.seconds, self.cpu_seconds + lap.cpu_seconds
        self.window.seconds += lap.seconds

    def count(self, tokens: Mapping[str, int]) -> None:
        for name, number in tokens.items():
            self.sources[name] = self.sources.get(name, 0) + number

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RunProgress":
        made: dict[str, Any] = {"window": MetricsWindow(**data["window"])}
        if data.get("forecast"):
            made["forecast"] = Forecast(**data["forecast"])
        if data.get("course"):
            made["course"] = Course(**data["course"])
        return cls(**(data | made))
