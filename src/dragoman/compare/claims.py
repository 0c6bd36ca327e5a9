"""Published claims, and what the results of studies say of each: by rule, never by hand.

A claim names a study and a test. The test reads the study's results and gives one of four verdicts, with its reason.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from dragoman.compare.page.charts import number
from dragoman.compare.results import read_results
from dragoman.config import config, from_dict, load_yaml
from dragoman.errors import ConfigError

HOLDS, PARTLY, NOT_HERE, CANNOT = "holds", "holds partly", "does not hold here", "cannot be tested at this size"
NO_RESULT = "the study has no result yet"
Found = Mapping[str, Any]


# ---- claims ---------------------------------------------------------------------------------------


@config
class ClaimTest:
    """How a study tests a claim: one of ``better``, ``equal``, ``of`` and ``collapses``."""

    figure: str | None = None
    """Figure of the study."""
    better: str | None = None
    """Contestant that is said to be better ..."""
    than: str | None = None
    """... than this one."""
    by: float | None = None
    """Published difference."""
    by_percent: float | None = None
    """Published difference in percent of the other's figure."""
    equal: tuple[str, str] | None = None
    """Contestants that are said to be equal, within ``within``."""
    of: str | None = None
    """Contestant whose value is published: ``at_least``, ``at_most``, or ``near`` within ``within``."""
    at: str | float | None = None
    """Place on the figure's curve; None for the figure itself."""
    at_least: float | None = None
    at_most: float | None = None
    near: float | None = None
    within: float | None = None
    direction: float | None = None
    """Value on one side of which the claim's direction holds, though its size may differ."""
    collapses: str | None = None
    """Contestant whose trainings are said not to finish."""


@config
class Claim:
    """A claim as it was published."""

    id: str
    claim: str
    """Claim in words."""
    source: str
    """Where it was published."""
    printed: str = ""
    """Its figures, as printed."""
    study: str | None = None
    """Study that tests it."""
    test: ClaimTest | None = None
    cannot: str = ""
    """Needs of a test, where none is possible at this size."""
    note: str = ""
    """Sentence that is always added."""


@dataclass(frozen=True)
class ClaimVerdict:
    """Verdict of our results on a claim."""

    verdict: str
    ours: str
    """Our figures, with intervals; empty where there are none."""
    why: str
    """Reason, in words."""


def read_claims(path: Path) -> list[Claim]:
    """Return the claims of a file.

    Raises:
        ConfigError: no such file, no claim in it, a claim that is there twice, one with neither a test nor a reason,
            or a test that lacks something.
    """
    given = load_yaml(path)
    if not given:
        raise ConfigError(f"{path}: no claim in it")
    claims = list(from_dict(tuple[Claim, ...], given, where=str(path)))
    seen: set[str] = set()
    for claim in claims:
        if claim.id in seen:
            raise ConfigError(f"{path}: {claim.id} is there twice")
        seen.add(claim.id)
        if bool(claim.cannot) == bool(claim.study and claim.test):
            raise ConfigError(f"{path}: {claim.id}: give study and test, or cannot, the reason why there is none")
        if claim.test and (wrong := _mistake(claim.test)):
            raise ConfigError(f"{path}: {claim.id}: test: {wrong}")
    return claims


def read_all_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results in a folder by the name of the study.

    Raises:
        DataError: a file that is no result of a study.
    """
    return {path.stem: read_results(path) for path in sorted(folder.glob("*.json"))}


# ---- verdicts -------------------------------------------------------------------------------------


def judge(claim: Claim, results: Mapping[str, Found]) -> ClaimVerdict:
    """Return the verdict on a claim by the results of studies, by their names."""
    if claim.cannot or claim.test is None:
        return ClaimVerdict(CANNOT, "", claim.cannot)
    found = results.get(str(claim.study))
    if found is None:
        return ClaimVerdict(CANNOT, "", NO_RESULT)
    (form,) = _forms(claim.test)
    try:
        return _FORMS[form](found, claim.test)
    except KeyError as missing:
        return ClaimVerdict(CANNOT, "", f"the study's result has no {missing.args[0]}")


def _forms(test: ClaimTest) -> list[str]:
    return [name for name in _FORMS if getattr(test, name) is not None]


def _mistake(test: ClaimTest) -> str:
    """Return what is wrong with a test, in words, or nothing. Without bounds every value would be as claimed."""
    forms = _forms(test)
    if len(forms) != 1:
        return f"give one of {', '.join(_FORMS)}"
    (form,) = forms
    settings = {*chain(*_NEEDED.values(), *_POSSIBLE.values())}
    given = {name for name in settings if getattr(test, name) is not None}
    if missing := [name for name in _NEEDED[form] if name not in given]:
        return f"{form}: give {' and '.join(missing)}"
    if others := sorted(given - {*_NEEDED[form], *_POSSIBLE[form]}):
        return f"{others[0]}: does not go with {form}: leave it out"
    if {"by", "by_percent"} <= given:
        return "by: give it or by_percent"
    return _wrong_bounds(test, given) if form == "of" else ""


def _wrong_bounds(test: ClaimTest, given: Set[str]) -> str:
    """Return what is wrong with the values that are claimed, or nothing."""
    if "near" in given and given & {"at_least", "at_most"}:
        return "near: give it, or at_least and at_most"
    if not given & {"near", "at_least", "at_most"}:
        return "of: give at_least, at_most or near"
    if "within" in given and "near" not in given:
        return "within: give near with it"
    least, most = _bounds(test)
    if least > most:
        return f"at_least: no value is at least {number(least)} and at most {number(most)}"
    if test.direction is not None and least <= test.direction <= most:
        return "direction: give a value outside those that are claimed"
    return ""


def _better(found: Found, test: ClaimTest) -> ClaimVerdict:
    one, other, figure = str(test.better), str(test.than), str(test.figure)
    record, sign = _pair(found, figure, one, other)
    if record["difference"] is None:
        return _unfinished(found, one, other)
    sign = -sign if found["figures"][figure]["higher_is_better"] is False else sign
    gain, low, high = _oriented(record, sign)
    ours = f"{_values(found, figure, one, other)}; better by {number(gain)}, {_between(low, high)}"
    by = test.by
    if test.by_percent is not None:
        by = test.by_percent / 100 * abs(found["figures"][figure]["values"][other]["mean"])
    if record["shown"] != "neither":
        if record[record["shown"]] != one:
            return ClaimVerdict(NOT_HERE, ours, f"the other way round: {record['words']}")
        if by is None or low <= by <= high:
            return ClaimVerdict(HOLDS, ours, record["words"])
        return ClaimVerdict(PARTLY, ours, f"the direction holds; the size here is {number(gain)}, not {number(by)}")
    if by is not None and high < by:
        return ClaimVerdict(NOT_HERE, ours, f"{record['words']}, and {number(by)} was claimed")
    return ClaimVerdict(CANNOT, ours, record["words"])


def _equal(found: Found, test: ClaimTest) -> ClaimVerdict:
    one, other = test.equal or ("", "")
    figure, within = str(test.figure), float(test.within or 0)
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


def _value(found: Found, test: ClaimTest) -> ClaimVerdict:
    one, figure = str(test.of), str(test.figure)
    mean, low, high = _measured(found, figure, one, test.at)
    place = f" at {_place(test.at)}" if test.at is not None else ""
    ours = f"{one}{place}: {number(mean)} {_unit(found, figure, one)}".rstrip()
    ours += "" if low == high else f", {_between(low, high)}"
    least, most = _bounds(test)
    if least <= low and high <= most:
        return ClaimVerdict(HOLDS, ours, "the whole interval is as claimed" if low != high else "it is as claimed")
    if least <= mean <= most:
        return ClaimVerdict(PARTLY, ours, "the mean is as claimed, and part of the interval is not")
    if _same_side(test, low, high):
        return ClaimVerdict(PARTLY, ours, f"the direction holds; the size here is {number(mean)}, not {_claimed(test)}")
    if high < least or low > most:
        beyond = "the whole interval is beyond the claim" if low != high else f"it is not {_claimed(test)}"
        return ClaimVerdict(NOT_HERE, ours, beyond)
    return ClaimVerdict(CANNOT, ours, "the mean is not as claimed, though part of the interval is: more seeds may tell")


def _collapses(found: Found, test: ClaimTest) -> ClaimVerdict:
    one = str(test.collapses)
    runs = [run for run in found["runs"] if run["contestant"] == one]
    if not runs:
        raise KeyError(one)
    failed = [run for run in runs if not run["finished"]]
    ours = f"{len(failed)} of {len(runs)} trainings of {one} did not finish"
    if not failed:
        return ClaimVerdict(NOT_HERE, ours, "all finished")
    return ClaimVerdict(HOLDS if len(failed) == len(runs) else PARTLY, ours, failed[0]["failure"])


_FORMS = {"better": _better, "equal": _equal, "of": _value, "collapses": _collapses}
_NEEDED = {"better": ("figure", "than"), "equal": ("figure", "within"), "of": ("figure",), "collapses": ()}
"""Further settings that each form of test needs."""
_POSSIBLE: dict[str, tuple[str, ...]] = {
    "better": ("by", "by_percent"),
    "equal": (),
    "of": ("at", "at_least", "at_most", "near", "within", "direction"),
    "collapses": (),
}
"""Settings that it may have besides."""


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


def _bounds(test: ClaimTest) -> tuple[float, float]:
    if test.near is not None:
        return test.near - (test.within or 0), test.near + (test.within or 0)
    return (
        float("-inf") if test.at_least is None else test.at_least,
        float("inf") if test.at_most is None else test.at_most,
    )


def _same_side(test: ClaimTest, low: float, high: float) -> bool:
    """Return whether an interval lies on that side of ``direction`` where the claim lies."""
    if test.direction is None:
        return False
    _, most = _bounds(test)
    return high < test.direction if most < test.direction else low > test.direction


def _claimed(test: ClaimTest) -> str:
    """Return the bounds of a claim, in words."""
    least, most = _bounds(test)
    if least == most:
        return number(least)
    if least == float("-inf"):
        return f"at most {number(most)}"
    if most == float("inf"):
        return f"at least {number(least)}"
    return f"{number(least)} to {number(most)}"


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
