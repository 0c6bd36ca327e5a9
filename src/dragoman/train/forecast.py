"""Forecasts of a run's length, for budgets of minutes.

Clock readings cannot be repeated. So only forecasts read the clock, and each forecast is written down before a step
depends on it: in ``forecasts.jsonl`` and in the progress of every checkpoint. A resumed run reuses the recorded
forecasts before it makes new ones, and so repeats every learning rate, and its end, to the bit.
"""

import dataclasses
from dataclasses import dataclass

from dragoman.checkpoint import RunDirectory
from dragoman.journal import Journal
from dragoman.train.budget import Course

INTERVALS = 250
"""Approximate number of forecasts in a whole budget. A run whose speed changes may end late by one interval at most."""
SMOOTHING = 0.5
"""Weight of the newest interval in the expected speed: the rest keeps the shown total from jumping about."""


@dataclass(frozen=True)
class Forecast:
    """Expected length of a run, as seen after ``step`` steps."""

    step: int
    seconds: float
    """Time spent learning until then."""
    total: int
    """Steps of the whole run, if it continues at its recent speed."""
    budget: float
    """Seconds to learn in all."""

    @property
    def course(self) -> Course:
        """How the run spends its time."""
        return Course(self.step, min(1.0, self.seconds / self.budget), self.total)


def forecast(budget: float, before: Forecast | None, step: int, seconds: float) -> Forecast | None:
    """Return a new forecast for ``budget`` seconds; None while the one ``before`` is still valid.

    One is due when enough time has passed, and where the run would end before its time.
    """
    began, past = (before.step, before.seconds) if before else (0, 0.0)
    ends = before is not None and step >= before.total
    if step == began or seconds <= past or (seconds - past < budget / INTERVALS and not ends):
        return None
    pace = (seconds - past) / (step - began)
    if before is not None and before.total > began:
        expected = (budget - past) / (before.total - began)
        pace = SMOOTHING * pace + (1 - SMOOTHING) * expected
    return Forecast(step, seconds, step + max(0, round((budget - seconds) / pace)), budget)


class Forecasts:
    """Forecasts of a run: first the recorded ones, then new ones."""

    def __init__(self, directory: RunDirectory):
        self.journal = Journal(directory.path / "forecasts.jsonl")
        self.written: dict[int, Forecast] = {}

    def reopen(self, step: int, budget: float | None) -> None:
        """Resume after ``step``: reuse later forecasts made for ``budget`` seconds, drop those for another budget."""
        if self.journal.path.exists():
            self.journal.rewind(lambda line: line["step"] <= step or line["budget"] == budget)  # nor a truncated line
            self.written = {line["step"]: Forecast(**line) for line in self.journal.lines() if line["step"] > step}

    def after(self, budget: float, before: Forecast | None, step: int, seconds: float) -> Forecast | None:
        """Return the forecast made after ``step``, or made now; None where none is due."""
        if self.written:
            return self.written.pop(step, None)
        if made := forecast(budget, before, step, seconds):
            self.journal.append(dataclasses.asdict(made))
        return made

    def flush(self) -> None:
        self.journal.flush()
