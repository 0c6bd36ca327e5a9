"""Rows of a checklist: a verdict, the figures behind it, and what they were measured on."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

ChecklistVerdict = Literal["good", "look", "poor", "not measured"]
VERDICTS: tuple[ChecklistVerdict, ...] = ("poor", "look", "good", "not measured")
"""In the order in which a reader wants to know of them."""


@dataclass(frozen=True)
class ChecklistTable:
    """Figures of a row in detail."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ChecklistExample:
    """One case, as names and texts."""

    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ChecklistRow:
    """One question about a model, with its answer."""

    group: str
    title: str
    verdict: ChecklistVerdict
    finding: str
    """The answer in one sentence, with its figures."""
    measured: str = ""
    """Kind and number of the cases that were measured."""
    limits: str = ""
    """How the verdict follows from the figure."""
    tables: tuple[ChecklistTable, ...] = ()
    examples: tuple[ChecklistExample, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the row as JSON can hold it."""
        return asdict(self)


def below(value: float, good: float, look: float) -> ChecklistVerdict:
    """Return the verdict on a figure of which less is better."""
    return "good" if value <= good else "look" if value <= look else "poor"


def above(value: float, good: float, look: float) -> ChecklistVerdict:
    """Return the verdict on a figure of which more is better."""
    return "good" if value >= good else "look" if value >= look else "poor"


def unmeasured(group: str, title: str, why: str) -> ChecklistRow:
    """Return a row for a question that could not be answered."""
    return ChecklistRow(group=group, title=title, verdict="not measured", finding=why)


def percent(part: float, whole: float = 1.0) -> str:
    """Return a part as a percentage, with a digit after the point where that says something."""
    value = 100 * part / whole if whole else 0.0
    return f"{value:.0f}%" if value in (0, 100) or 10 <= value <= 99.4 else f"{value:.1f}%"


def example(**parts: str) -> ChecklistExample:
    """Return an example; names are written with spaces."""
    return ChecklistExample(tuple((name.replace("_", " "), text) for name, text in parts.items()))


def counted(number: int, what: str) -> str:
    """Return a number with its noun in singular or plural: ``1 pair``, ``1,000 pairs``."""
    return f"{number:,} {what if number == 1 else what + 's'}"
