"""Numbers of a text and its translation, compared by what they may mean.

Separators change between languages: 1,234.56 is 1.234,56 elsewhere, or 1 234,56. So a number has several readings.
1.500 may be fifteen hundred, or one and a half; 1.5 is never 15. Two numbers are the same if they share one, and
so are 2.0 and 2. A number of several groups may be several numbers on the other side: 10.30 for 10:30.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection

_NUMBER = re.compile(
    r"(?:(?<![\w.])\.)?\d+(?:[ \u00a0\u202f]\d{3}(?!\d))*(?:[.,'\u2019\u066b\u066c]\d+)*"
    r"(?:(?<=[.,\u066b]\d{3})(?:[ \u00a0\u202f]\d{3}(?!\d))+)?"
)
"""Spaces separate groups of three, before a point and after one: 12 345.678 901; but 1.5 100 are two numbers."""
_GROUP = re.compile(r"\A(?=\.)|\d+")  # the first of .5 is empty
_SEPARATOR = re.compile(r"\D")
_DECIMAL = ".,\u066b"
"""Separators that decimals may follow; of these the last one, Arabic, separates nothing else."""
_ZEROS = re.compile(r"[.,\u066b]0{1,2}$")
_ALIKE = str.maketrans({"\u2019": "'", "\u00a0": " ", "\u202f": " "})


def numbers_in(text: str) -> list[str]:
    """Return the numbers of a text as they are written, in their order."""
    return _NUMBER.findall(text) if any(map(str.isdecimal, text)) else []


def readings(number: str) -> tuple[str, ...]:
    """Return what a number may mean, in ASCII digits; the whole number first, if it may be one.

    Whole numbers have no leading zeros, decimals a point, and groups spaces between them: ``1,500`` is ``1500``,
    ``1.500`` and ``1 500``.
    """
    first, *others = ("".join(str(unicodedata.digit(c)) for c in group) for group in _GROUP.findall(number))
    first = first.lstrip("0") or "0"
    if not others:
        return (first,)
    separators = _SEPARATOR.findall(number.translate(_ALIKE))
    found, groups = [], [first, *others]
    if _in_thousands(groups, separators):
        found.append("".join(groups).lstrip("0") or "0")
    before, last = separators[:-1], separators[-1]
    if last in _DECIMAL and last not in before and (not before or _in_thousands(groups[:-1], before)):
        found.append(f"{''.join(groups[:-1])}.{groups[-1]}")
    if separators[0] in _DECIMAL and set(separators[1:]) == {" "}:
        found.append(f"{first}.{''.join(others)}")
    return (*found, " ".join(groups))


def whole_number(number: str) -> str | None:
    """Return the digits of a number that may be a whole one, without separators and leading zeros; None for 1.5."""
    first = readings(number)[0]
    return first if first.isdigit() else None


def _in_thousands(groups: list[str], separators: list[str]) -> bool:
    """Return whether separators may divide thousands, as in 1,234,567, or as in India, 12,34,567, or ten thousands."""
    (separator, *others), (first, *rest) = sorted(set(separators)), groups
    sizes = list(map(len, rest))
    if set(sizes) == {4}:  # of China and Japan
        return not others and separator in ", " and len(first) <= 4 and first != "0"
    if others or separator == "\u066b" or sizes[-1] != 3 or set(sizes[:-1]) not in (set(), {2}, {3}):
        return False
    return separator == " " or len(rest) > 1 or (len(first) <= 3 and first != "0")


def unmatched_numbers(source: str, target: str) -> tuple[list[str], list[str]]:
    """Return the numbers of each text that the other lacks."""
    here, there = numbers_in(source), numbers_in(target)
    if not (here or there):
        return [], []
    missing, added = _without_equals(here, there), _without_equals(there, here)  # as written first
    if missing and added:
        missing, added = without_same(missing, added, readings)
        _remove_groups(missing, added)
        _remove_groups(added, missing)
        missing, added = without_same(missing, added, _without_zeros)
    return missing, added


def _without_zeros(number: str) -> tuple[str, ...]:
    return readings(_ZEROS.sub("", number) or "0")  # of .0


def without_same(
    numbers: list[str], others: list[str], meanings: Callable[[str], tuple[str, ...]]
) -> tuple[list[str], list[str]]:
    """Return the numbers of both lists that share no meaning with one of the other list, one for one.

    Args:
        meanings: what a number may mean, such as ``readings``.
    """
    waiting = defaultdict[str, list[int]](list)
    for i in reversed(range(len(others))):
        for meaning in meanings(others[i]):
            waiting[meaning].append(i)
    left, taken = list[str](), set[int]()
    for number in numbers:
        twins = (_first_free(waiting.get(meaning, []), taken) for meaning in meanings(number))
        if (twin := next((twin for twin in twins if twin is not None), None)) is None:
            left.append(number)
        else:
            taken.add(twin)
    return left, [other for i, other in enumerate(others) if i not in taken]


def _without_equals(numbers: list[str], others: list[str]) -> list[str]:
    """Return the ``numbers`` that are not among ``others``, one for one."""
    there, left = Counter(others), []
    for number in numbers:
        if there[number]:
            there[number] -= 1
        else:
            left.append(number)
    return left


def _first_free(waiting: list[int], taken: Collection[int]) -> int | None:
    while waiting and waiting[-1] in taken:
        waiting.pop()
    return waiting[-1] if waiting else None


def _remove_groups(numbers: list[str], others: list[str]) -> None:
    """Remove the numbers whose groups of digits are numbers of their own in ``others``, and remove these."""
    there = Counter(map(whole_number, others))
    left, gone = list[str](), Counter[str | None]()
    for number in numbers:
        groups = Counter[str | None](readings(part)[0] for part in re.findall(r"\d+", number))
        if groups.total() > 1 and all(there[group] >= count for group, count in groups.items()):
            there.subtract(groups)
            gone.update(groups)
        else:
            left.append(number)
    numbers[:] = left
    for i in reversed(range(len(others))) if gone else ():
        if gone[whole := whole_number(others[i])]:
            gone[whole] -= 1
            del others[i]
