"""Patterns for names of weights and layers in run files, with ``*`` for any text."""

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from dragoman.errors import ConfigError

LISTED = 6
"""Number of names that an error message lists."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether ``name`` matches one of the ``patterns``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(patterns: Iterable[str], names: Iterable[str], *, where: str, what: str = "weight") -> None:
    """Check that each pattern matches one of the ``names``, which are those of every ``what``.

    Raises:
        ConfigError: a pattern without a match; the message suggests one.
    """
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"{where}: {pattern!r} is no {what} of this model;{_hint(pattern, names)}")


def _hint(pattern: str, names: Sequence[str]) -> str:
    """Suggest names; the numbers of a tower's layers become a star, since their names differ in nothing else."""
    known = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
    beginnings = [".".join([*name.split(".")[:i], "*"]) for name in known for i in range(1, name.count(".") + 1)]
    near = difflib.get_close_matches(pattern, dict.fromkeys([*beginnings, *known]), n=1)
    meant = f" did you mean {near[0]!r}?" if near else ""
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"{meant} there are {', '.join(known[:LISTED])}{more}"
