"""Plural forms of gettext: how many a language has, and which of them a number takes.

A header line ``Plural-Forms: nplurals=2; plural=(n != 1);`` holds a C expression in n. It is parsed here, not executed.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from dragoman.text.placeholders import find_placeholders

NUMBERS = range(1001)
"""Numbers that two rules are compared on: every language's rule repeats within them."""


@dataclass(frozen=True)
class Plurals:
    """Plural rule of a language."""

    count: int
    """Number of forms."""
    form: Callable[[int], int]
    """Function from a number to its form."""

    @property
    def singular(self) -> int | None:
        """Return the form for 1; None in a language without plurals, whose one form is for every number."""
        return self.form(1) if self.count > 1 else None

    @property
    def singular_is_exact(self) -> bool:
        """Return True if the form for 1 is for no other number, so that it need not contain the number."""
        return self.singular is not None and sum(self.form(n) == self.singular for n in NUMBERS) == 1

    def same_as(self, other: "Plurals | None") -> bool:
        """Return True if both give every number the same form."""
        return other is not None and self.count == other.count and all(self.form(n) == other.form(n) for n in NUMBERS)


def names_number(singular: str, plural: str, codes: Iterable[str] = ()) -> bool:
    """Return True if a singular has as many placeholders as its plural, the number among them.

    Only then can it be translated where a language has one form for 1, 21, 31, ... or for 0 and 1.

    Args:
        codes: texts that are placeholders whatever their form.
    """
    return len(find_placeholders(singular, codes)) >= len(find_placeholders(plural, codes))


@lru_cache(maxsize=64)
def parse(field: str) -> Plurals | None:
    """Parse a ``Plural-Forms`` field; None for a template's, which is not filled in.

    Raises:
        ValueError: it cannot be parsed, or gives a number a form that does not exist.
    """
    found = re.fullmatch(r"\s*nplurals\s*=\s*(\w+)\s*;\s*plural\s*=\s*([^;]*?)\s*;?\s*", field)
    if not found:
        raise ValueError("not of the form nplurals=2; plural=(n != 1);")
    if found[1] == "INTEGER":
        return None
    count, form = int(found[1]) if found[1].isdecimal() else 0, _Parser(found[2]).whole()
    if not 0 < count < 100:
        raise ValueError(f"nplurals={found[1]} is not a number of forms")
    for n in NUMBERS:
        try:
            if not 0 <= form(n) < count:
                raise ValueError(f"gives the number {n} form {form(n)} of {count}")
        except ZeroDivisionError:
            raise ValueError(f"divides by zero for the number {n}") from None
    return Plurals(count, form)


@lru_cache(maxsize=256)
def rule_of_language(language: str) -> Plurals | None:
    """Return the usual rule of a language, named as ``de``, ``pt-BR`` or ``sr@latin``; None if unknown."""
    field = field_of(language)
    return parse(field) if field else None


@lru_cache(maxsize=256)
def field_of(language: str) -> str | None:
    """Return the usual ``Plural-Forms`` field of a language; None if unknown."""
    name = language.strip().partition(".")[0].replace("-", "_").lower()  # without .UTF-8
    without_modifier = name.partition("@")[0]
    fields, aliases = _tables()
    for candidate in (name, without_modifier, re.split("[_@]", name)[0]):
        if field := fields.get(candidate) or fields.get(aliases.get(candidate, "")):
            return field
    return None


def same_language(one: str, other: str) -> bool:
    """Return True if two names are of one language, such as ``es`` and ``es_MX``."""
    first, second = (re.split(r"[-_.@]", name.strip().lower())[0] for name in (one, other))
    return first == second


@cache
def _tables() -> tuple[dict[str, str], dict[str, str]]:
    """Return Plural-Forms of every language in Weblate's table, and languages' other names; all in lower case."""
    from weblate_language_data.aliases import ALIASES
    from weblate_language_data.languages import LANGUAGES  # some 10,000 lines: imported when first needed

    fields = {}
    for code, _, count, rule in LANGUAGES:
        expression = rule if rule.isdecimal() or rule.startswith("(") else f"({rule})"
        fields[code.lower()] = f"nplurals={count}; plural={expression};"
    return fields, {name.lower(): code.lower() for name, code in ALIASES.items()}


# ---- C expressions in n ---------------------------------------------------------------------------

Formula = Callable[[int], int]

_OPERATORS: list[dict[str, Callable[[int, int], int]]] = [
    {"||": lambda a, b: int(bool(a or b))},
    {"&&": lambda a, b: int(bool(a and b))},
    {"==": lambda a, b: int(a == b), "!=": lambda a, b: int(a != b)},
    {
        "<": lambda a, b: int(a < b),
        ">": lambda a, b: int(a > b),
        "<=": lambda a, b: int(a <= b),
        ">=": lambda a, b: int(a >= b),
    },
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"*": lambda a, b: a * b, "/": lambda a, b: a // b, "%": lambda a, b: a % b},
]
"""Operators by precedence, loosest first."""
_TOKEN = re.compile(r"\s*(\|\||&&|[=!<>]=|[-+*/%<>!?:()n]|\d{1,9})")
DEPTH = 50
"""Largest nesting depth of parentheses, conditions and negations."""
LONGEST = 400
"""Largest number of tokens in an expression."""


class _Parser:
    """Recursive-descent parser of an expression's tokens."""

    def __init__(self, text: str):
        self.tokens: list[str] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            if not (found := _TOKEN.match(text, at)):
                raise ValueError(f"{text[at:].strip()[:20]!r} is not part of a plural expression")
            self.tokens.append(found[1])
            at = found.end()
        if len(self.tokens) > LONGEST:
            raise ValueError("the plural expression is too long")
        self.tokens.reverse()  # so that the next token is popped from the end

    def whole(self) -> Formula:
        formula = self.condition(0)
        if self.tokens:
            raise ValueError(f"{self.tokens[-1]!r} is out of place in the plural expression")
        return formula

    def next_is(self, token: str) -> bool:
        return bool(self.tokens) and self.tokens[-1] == token and bool(self.tokens.pop())

    def condition(self, depth: int) -> Formula:
        if depth > DEPTH:
            raise ValueError("the plural expression is nested too deeply")
        test = self.binary(0, depth)
        if not self.next_is("?"):
            return test
        yes = self.condition(depth + 1)
        if not self.next_is(":"):
            raise ValueError("a ':' is missing in the plural expression")
        no = self.condition(depth + 1)
        return lambda n: yes(n) if test(n) else no(n)

    def binary(self, level: int, depth: int) -> Formula:
        if level == len(_OPERATORS):
            return self.unary(depth)
        formula = self.binary(level + 1, depth)
        while self.tokens and self.tokens[-1] in _OPERATORS[level]:
            apply = _OPERATORS[level][self.tokens.pop()]
            formula = _combine(apply, formula, self.binary(level + 1, depth))
        return formula

    def unary(self, depth: int) -> Formula:
        if depth > DEPTH:
            raise ValueError("the plural expression is nested too deeply")
        if self.next_is("!"):
            inner = self.unary(depth + 1)
            return lambda n: int(not inner(n))
        if self.next_is("("):
            inner = self.condition(depth + 1)
            if not self.next_is(")"):
                raise ValueError("a ')' is missing in the plural expression")
            return inner
        if self.next_is("n"):
            return lambda n: n
        if self.tokens and self.tokens[-1].isdecimal():
            number = int(self.tokens.pop())
            return lambda n: number
        raise ValueError("the plural expression is incomplete")


def _combine(apply: Callable[[int, int], int], left: Formula, right: Formula) -> Formula:
    if apply is _OPERATORS[1]["&&"]:  # both short-circuit, as in C
        return lambda n: int(bool(left(n) and right(n)))
    if apply is _OPERATORS[0]["||"]:
        return lambda n: int(bool(left(n) or right(n)))
    return lambda n: apply(left(n), right(n))
