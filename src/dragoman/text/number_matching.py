"""Numbers of a text and its translation, compared by their digits.

Separators may change as they do between languages: 1,234.56 and 1.234,56 are the same number, and so are 2.0 and 2. A
number of several groups may be several numbers on the other side: 10.30 for 10:30, 01.05.2024 for 2024-05-01.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

_NUMBER = re.compile(r"(?:(?<![\w.])\.)?\d+(?:[.,'\u2019\u066b\u066c]\d+|[ \u00a0\u202f]\d{3}(?!\d))*")
_GROUP = re.compile(r"\A(?=\.)|\d+")  # the first of .5 is empty
_ZEROS = re.compile(r"[.,\u066b]0{1,2}$")


def numbers_in(text: str) -> list[str]:
    """Return the numbers of a text as they are written, in their order."""
    return _NUMBER.findall(text) if any(map(str.isdecimal, text)) else []


def digits(number: str) -> str:
    """Return the ASCII digits of a number, without separators and leading zeros: 5 for 05, 0 for 00, 05 for 0.5."""
    first, *others = ("".join(str(unicodedata.digit(c)) for c in group) for group in _GROUP.findall(number))
    return "".join([first.lstrip("0") or "0", *others])


def unmatched_numbers(source: str, target: str) -> tuple[list[str], list[str]]:
    """Return the numbers of each text that the other lacks."""
    here, there = numbers_in(source), numbers_in(target)
    if not (here or there):
        return [], []
    for key in (str, digits):  # as written first: 3.0 and 30 have the same digits
        here, there = _without_equals(here, there, key), _without_equals(there, here, key)
    missing, added = here, there
    _remove_groups(missing, added)
    _remove_groups(added, missing)
    remove_matches(missing, added, lambda a, b: digits(_ZEROS.sub("", a)) == digits(_ZEROS.sub("", b)))
    return missing, added


def remove_matches(missing: list[str], added: list[str], same: Callable[[str, str], bool]) -> None:
    """Remove the numbers that are the same from both lists, one for one."""
    for number in list(missing):
        if (twin := next((other for other in added if same(number, other)), None)) is not None:
            missing.remove(number)
            added.remove(twin)


def _without_equals(numbers: list[str], others: list[str], key: Callable[[str], str]) -> list[str]:
    """Return the ``numbers`` that have none with the same ``key`` in ``others``."""
    there, left = Counter(map(key, others)), []
    for number in numbers:
        if there[key(number)]:
            there[key(number)] -= 1
        else:
            left.append(number)
    return left


def _remove_groups(numbers: list[str], others: list[str]) -> None:
    """Remove the numbers whose groups of digits are numbers of their own in ``others``, and remove these."""
    for number in list(numbers):
        groups = Counter(map(digits, re.findall(r"\d+", number)))
        apart = [other for other in others if digits(other) in groups]
        if groups.total() > 1 and groups <= Counter(map(digits, apart)):
            numbers.remove(number)
            for group in groups.elements():
                others.remove(next(other for other in others if digits(other) == group))
