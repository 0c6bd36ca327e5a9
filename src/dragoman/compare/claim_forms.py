"""Forms of a claim's test, and what each makes of a study's results: one of four verdicts, with its reason."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import chain
from typing import Annotated, Any

from pydantic import BeforeValidator

from dragoman.compare.page.charts import number
from dragoman.config import OneOf, choices, config, kind_of, unknown

HOLDS, PARTLY, NOT_HERE, CANNOT = "holds", "holds partly", "does not hold here", "cannot be tested at this size"
Found = Mapping[str, Any]


@dataclass(frozen=True)
class ClaimVerdict:
    """Verdict of our results on a claim."""

    verdict: str
    ours: str
    """Our figures, with intervals; empty where there are none."""
    why: str
    """Reason, in words."""


class ClaimForm(ABC):
    """Form of a test: what it needs, and its verdict."""

    @property
    def mistake(self) -> str:
        """Return which of its settings do not fit one another, in words, or nothing."""
        return ""

    @abstractmethod
    def verdict(self, found: Found) -> ClaimVerdict:
        """Return the verdict of a study's results.

        Raises:
            KeyError: the study has no such figure or contestant.
        """


@config
class Better(ClaimForm):
    """One contestant is better than another."""

    better: str
    """Contestant that is said to be better ..."""
    figure: str
    """Figure of the study."""
    than: str
    """... than this one."""
    by: float | None = None
    """Published difference."""
    by_percent: float | None = None
    """Published difference in percent of the other's figure."""

    @property
    def mistake(self) -> str:
        return "by: give it or by_percent" if None not in (self.by, self.by_percent) else ""

    def verdict(self, found: Found) -> ClaimVerdict:
        one, other, figure = self.better, self.than, self.figure
        record, sign = _pair(found, figure, one, other)
        if record["difference"] is None:
            return _unfinished(found, one, other)
        sign = -sign if found["figures"][figure]["higher_is_better"] is False else sign
        gain, low, high = _oriented(record, sign)
        ours = f"{_values(found, figure, one, other)}; better by {number(gain)}, {_between(low, high)}"
        by = self.by
        if self.by_percent is not None:
            by = self.by_percent / 100 * abs(found["figures"][figure]["values"][other]["mean"])
        if record["shown"] != "neither":
            if record[record["shown"]] != one:
                return ClaimVerdict(NOT_HERE, ours, f"the other way round: {record['words']}")
            if by is None or low <= by <= high:
                return ClaimVerdict(HOLDS, ours, record["words"])
            return ClaimVerdict(PARTLY, ours, f"the direction holds; the size here is {number(gain)}, not {number(by)}")
        if by is not None and high < by:
            return ClaimVerdict(NOT_HERE, ours, f"{record['words']}, and {number(by)} was claimed")
        return ClaimVerdict(CANNOT, ours, record["words"])


@config
class Equal(ClaimForm):
    """Two contestants are equal."""

    equal: tuple[str, str]
    """Contestants that are said to be equal ..."""
    figure: str
    """Figure of the study."""
    within: float
    """... within so much."""

    def verdict(self, found: Found) -> ClaimVerdict:
        (one, other), figure, within = self.equal, self.figure, self.within
        record, sign = _pair(found, figure, one, other)
        if record["difference"] is None:
            return ClaimVerdict(CANNOT, _failures(found, one, other), _TOO_FEW)
        gain, low, high = _oriented(record, sign)
        ours = f"{_values(found, figure, one, other)}; difference {number(gain)}, {_between(low, high)}"
        if -within <= low and high <= within:
            return ClaimVerdict(HOLDS, ours, f"the interval is within {number(within)} of no difference")
        if record["shown"] != "neither":
            if abs(gain) <= within:
                return ClaimVerdict(PARTLY, ours, f"{record['words']}: small, but a difference")
            if low > within or high < -within:
                return ClaimVerdict(NOT_HERE, ours, record["words"])
        return ClaimVerdict(CANNOT, ours, f"the interval reaches beyond {number(within)}: more seeds may tell")


@config
class Of(ClaimForm):
    """A contestant's value is as published: ``at_least``, ``at_most``, or ``near`` within ``within``."""

    of: str
    """Contestant whose value is published."""
    figure: str
    """Figure of the study."""
    at: str | float | None = None
    """Place on the figure's curve; None for the figure itself."""
    at_least: float | None = None
    at_most: float | None = None
    near: float | None = None
    within: float | None = None
    direction: float | None = None
    """Value on one side of which the claim's direction holds, though its size may differ."""

    @property
    def mistake(self) -> str:
        bounded = self.at_least is not None or self.at_most is not None
        if self.near is not None and bounded:
            return "near: give it, or at_least and at_most"
        if self.near is None and not bounded:  # every value would be as claimed
            return "of: give at_least, at_most or near"
        if self.near is None and self.within is not None:
            return "within: give near with it"
        least, most = self.bounds
        if least > most:
            return f"at_least: no value is at least {number(least)} and at most {number(most)}"
        if self.direction is not None and least <= self.direction <= most:
            return "direction: give a value outside those that are claimed"
        return ""

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest value that are as claimed."""
        if self.near is not None:
            return self.near - (self.within or 0), self.near + (self.within or 0)
        return (
            float("-inf") if self.at_least is None else self.at_least,
            float("inf") if self.at_most is None else self.at_most,
        )

    def verdict(self, found: Found) -> ClaimVerdict:
        one, figure = self.of, self.figure
        mean, low, high = _measured(found, figure, one, self.at)
        place = f" at {_place(self.at)}" if self.at is not None else ""
        ours = f"{one}{place}: {number(mean)} {_unit(found, figure, one)}".rstrip()
        ours += "" if low == high else f", {_between(low, high)}"
        least, most = self.bounds
        if least <= low and high <= most:
            return ClaimVerdict(HOLDS, ours, "the whole interval is as claimed" if low != high else "it is as claimed")
        if least <= mean <= most:
            return ClaimVerdict(PARTLY, ours, "the mean is as claimed, and part of the interval is not")
        if self._same_side(low, high):
            return ClaimVerdict(
                PARTLY, ours, f"the direction holds; the size here is {number(mean)}, not {self._claimed()}"
            )
        if high < least or low > most:
            beyond = "the whole interval is beyond the claim" if low != high else f"it is not {self._claimed()}"
            return ClaimVerdict(NOT_HERE, ours, beyond)
        return ClaimVerdict(
            CANNOT, ours, "the mean is not as claimed, though part of the interval is: more seeds may tell"
        )

    def _same_side(self, low: float, high: float) -> bool:
        """Return whether an interval lies on that side of ``direction`` where the claim lies."""
        if self.direction is None:
            return False
        _, most = self.bounds
        return high < self.direction if most < self.direction else low > self.direction

    def _claimed(self) -> str:
        """Return the bounds of the claim, in words."""
        least, most = self.bounds
        if least == most:
            return number(least)
        if least == float("-inf"):
            return f"at most {number(most)}"
        if most == float("inf"):
            return f"at least {number(least)}"
        return f"{number(least)} to {number(most)}"


@config
class Collapses(ClaimForm):
    """The trainings of a contestant do not finish."""

    collapses: str
    """Contestant whose trainings are said not to finish."""

    def verdict(self, found: Found) -> ClaimVerdict:
        one = self.collapses
        runs = [run for run in found["runs"] if run["contestant"] == one]
        if not runs:
            raise KeyError(one)
        failed = [run for run in runs if not run["finished"]]
        ours = f"{len(failed)} of {len(runs)} trainings of {one} did not finish"
        if not failed:
            return ClaimVerdict(NOT_HERE, ours, "all finished")
        return ClaimVerdict(HOLDS if len(failed) == len(runs) else PARTLY, ours, failed[0]["failure"])


def named_by_form(given: Any) -> Any:
    """Return the settings of a test with its kind, the one of its settings that names a form.

    Raises:
        ValueError: an unknown setting; no form or several; a setting that the form needs and that is missing, or one of
            another form.
    """
    if not isinstance(given, dict):
        return given
    forms = {kind_of(form): {field.name: field for field in fields(form)} for form in choices(ClaimTest)}
    kind = given.get("kind")
    given = {name: value for name, value in given.items() if value is not None and name != "kind"}
    known = [name for name in dict.fromkeys(chain(*forms.values())) if name != "kind"]
    if misspelt := [name for name in given if name not in known]:
        raise ValueError(unknown("settings", misspelt[0], known))
    named = [name for name in forms if name in given]
    if len(named) != 1:
        raise ValueError(f"give one of {', '.join(forms)}")
    (form,) = named
    if kind not in (None, form):
        raise ValueError(f"kind: {kind} does not go with {form}: leave it out")
    needed = [name for name, field in forms[form].items() if field.default is MISSING and name != "kind"]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"{form}: give {' and '.join(missing)}")
    if others := sorted(given.keys() - forms[form].keys()):
        raise ValueError(f"{others[0]}: does not go with {form}: leave it out")
    return {"kind": form} | given


ClaimTest = Annotated[Better | Equal | Of | Collapses, OneOf(), BeforeValidator(named_by_form)]
"""How a study tests a claim. In a file, the setting that a form is named after tells which."""


# ---- reading results --------------------------------------------------------------------------------


def _pair(found: Found, figure: str, one: str, other: str) -> tuple[Found, int]:
    """Return the verdict on a pair, and 1 if its difference is ``one`` - ``other``, or -1.

    Raises:
        KeyError: the study does not compare them by this figure.
    """
    for record in found["verdicts"]:
        if record["figure"] == figure and {record["a"], record["b"]} == {one, other}:
            return record, 1 if record["a"] == one else -1
    raise KeyError(f"comparison of {one} with {other} by {figure}")


def _oriented(record: Found, sign: int) -> tuple[float, float, float]:
    low, high = sorted(sign * end for end in record["interval"])
    return sign * record["difference"], low, high


def _measured(found: Found, figure: str, one: str, at: str | float | None) -> tuple[float, float, float]:
    """Return a mean and the ends of its interval; of a single value, or one that never varies, three times the value.

    Raises:
        KeyError: the study does not measure it there, or not its interval.
    """
    known = found["figures"][figure]
    if at is None:
        value = known["values"][one]
        ends = value["low"], value["high"]
        return value["mean"], *(value["mean"] if end is None else end for end in ends)
    curve = known["curve"] or {"x": [], "y": {}}
    if at not in curve["x"] or curve["y"][one][curve["x"].index(at)] is None:
        raise KeyError(f"{figure} at {_place(at)}")
    place = curve["x"].index(at)
    y, intervals = curve["y"][one][place], curve.get("intervals", {}).get(one)
    interval = intervals[place] if intervals else None
    if interval is None and known["values"][one]["seeds"] > 1:
        raise KeyError(f"interval of {figure} at {_place(at)}: run the study again")
    return y, *(interval or (y, y))


def _place(at: str | float) -> str:
    return at if isinstance(at, str) else number(at)


def _unit(found: Found, figure: str, one: str) -> str:
    known = found["figures"][figure]
    return known["values"].get(one, {}).get("unit", known["unit"])


def _values(found: Found, figure: str, *names: str) -> str:
    known = found["figures"][figure]
    unit = f" {known['unit']}" if known["unit"] not in ("", "%") else known["unit"]
    return ", ".join(f"{name} {number(known['values'][name]['mean'])}{unit}" for name in names) + f" ({figure})"


def _between(low: float, high: float) -> str:
    return f"95% interval {number(low)} to {number(high)}"


_TOO_FEW = "too few trainings finished to compare them"


def _unfinished(found: Found, one: str, other: str) -> ClaimVerdict:
    """Return the verdict where too few trainings finished: one that never does is worse than one that always does."""
    ours = _failures(found, one, other)
    (first, of_first), (second, of_second) = (_failed(found, name) for name in (one, other))
    if of_second and second == of_second and not first:
        return ClaimVerdict(HOLDS, ours, f"{other} does not finish, and {one} does")
    if of_first and first == of_first and not second:
        return ClaimVerdict(NOT_HERE, ours, f"{one} does not finish, and {other} does")
    return ClaimVerdict(CANNOT, ours, _TOO_FEW)


def _failures(found: Found, one: str, other: str) -> str:
    (first, of_first), (second, of_second) = (_failed(found, name) for name in (one, other))
    return f"{first} of {of_first} trainings of {one} and {second} of {of_second} of {other} did not finish"


def _failed(found: Found, name: str) -> tuple[int, int]:
    """Return how many trainings of a contestant did not finish, and of how many."""
    runs = [run for run in found["runs"] if run["contestant"] == name]
    return sum(not run["finished"] for run in runs), len(runs)
