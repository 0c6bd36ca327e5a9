"""Parts of a model by the names they have, with ``*`` for any text: what a run file may say of weights and layers."""

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from dragoman.errors import ConfigError

SHOWN = 6
"""Names that a complaint lists."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(patterns: Iterable[str], names: Iterable[str], *, where: str, what: str = "weight") -> None:
    """
    Raises:
        ConfigError: a pattern that fits none of the ``names``, each of which is a ``what``; with what may be meant.
    """
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"{where}: {pattern!r} is no {what} of this model;{_hint(pattern, names)}")


def _hint(pattern: str, names: Sequence[str]) -> str:
    """Layers of a tower have the same names but for a number: a star stands for it."""
    known = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
    beginnings = [".".join([*name.split(".")[:i], "*"]) for name in known for i in range(1, name.count(".") + 1)]
    near = difflib.get_close_matches(pattern, dict.fromkeys([*beginnings, *known]), n=1)
    meant = f" did you mean {near[0]!r}?" if near else ""
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"{meant} there are {', '.join(known[:SHOWN])}{more}"
