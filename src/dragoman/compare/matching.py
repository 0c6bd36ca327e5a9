"""Contestants of equal size: the widths of each are scaled until its model has the size that is wanted.

A size is counted on the model itself, on the meta device: no formula for any family.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from dragoman.compare.study import Match
from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError
from dragoman.train.recipe import RunConfig

SizeOf = Callable[[RunConfig], float]
"""Function that counts the size of a run's model.

Raises:
    ConfigError: sizes that do not fit one another.
"""
GRAINS = 6
"""Number of times that the multiple of widths is doubled where a model does not take one."""
WIDEST = 64
"""Largest factor on the widths as given."""


@dataclass(frozen=True)
class Matched:
    """Size that a contestant was fitted to."""

    hold: str
    wanted: float
    found: float
    widths: dict[str, float]
    """Fitted widths by path; empty where they were right as given."""

    @property
    def off(self) -> float:
        """Relative difference from the size that was wanted."""
        return self.found / self.wanted - 1


def fit_widths(cfg: RunConfig, match: Match, wanted: float, size_of: SizeOf) -> tuple[RunConfig, Matched]:
    """Return the configuration whose size is nearest to ``wanted``, and how near it is.

    Raises:
        ConfigError: none is near enough, or the model has none of the fields.
    """
    given = size_of(cfg)
    if abs(given / wanted - 1) < 1e-9:
        return cfg, Matched(match.hold, wanted, given, {})
    plain = to_dict(cfg)
    places = [place for path in match.by for place in _places(plain, path.split("."))]
    if not places:
        raise ConfigError(f"match.by: the model has no {' and no '.join(match.by)}")
    scaled = _Scaled(plain, places, size_of)
    best: tuple[float, RunConfig, float, dict[str, float]] | None = None
    for doubling in range(GRAINS):
        for found, one, widths in scaled.around(wanted, match.multiple << doubling):
            off = abs(found / wanted - 1)
            if best is None or off < best[0]:
                best = off, one, found, widths
        if best is not None and best[0] <= match.within:
            break
    if best is None:
        raise ConfigError(f"match.by: no multiple of {match.multiple} makes a model; set match.multiple")
    off, one, found, widths = best
    if off > match.within:
        raise ConfigError(
            f"match: cannot be matched: {found:,.0f} {match.hold} at best, {wanted:,.0f} wanted, "
            f"{off:.1%} off and {match.within:.1%} allowed: raise match.within, or name another field in match.by"
        )
    return one, Matched(match.hold, wanted, found, widths)


Place = tuple[str | int, ...]


def _places(node: Any, steps: Sequence[str], before: Place = ()) -> list[Place]:
    """List the numbers that a path with ``*`` leads to."""
    if not steps:
        return [before] if isinstance(node, int) and not isinstance(node, bool) else []
    step, rest = steps[0], steps[1:]
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    chosen = [(key, below) for key, below in entries if step in ("*", str(key))]
    return [place for key, below in chosen for place in _places(below, rest, (*before, key))]


class _Scaled:
    """Configurations that differ from a given one by a factor on some of its widths."""

    def __init__(self, plain: dict[str, Any], places: Sequence[Place], size_of: SizeOf):
        self.plain, self.places, self.size_of = plain, places, size_of
        self.widths = [_at(plain, place) for place in places]

    def around(self, wanted: float, multiple: int) -> list[tuple[float, RunConfig, dict[str, float]]]:
        """Return the models on either side of the size that is wanted, of those whose widths have this multiple."""
        first = max(self.widths)
        made_at = cache(lambda step: self._made(step * multiple / first, multiple))
        low, high = 1, max(1, round(WIDEST * first / multiple))
        while low < high:
            middle = (low + high) // 2
            made = made_at(middle)
            if made is None:
                return []  # this multiple does not do
            low, high = (middle + 1, high) if made[0] < wanted else (low, middle)
        both = (made_at(step) for step in (low - 1, low) if step >= 1)
        return [one for one in both if one is not None]

    def _made(self, factor: float, multiple: int) -> tuple[float, RunConfig, dict[str, float]] | None:
        plain, widths = to_dict(self.plain), dict[str, float]()
        for place, width in zip(self.places, self.widths, strict=True):
            widths[".".join(map(str, place))] = value = max(multiple, round(width * factor / multiple) * multiple)
            _at(plain, place[:-1])[place[-1]] = value
        try:
            cfg = from_dict(RunConfig, plain)
            return self.size_of(cfg), cfg, widths
        except ConfigError:
            return None


def _at(node: Any, place: Place) -> Any:
    for step in place:
        node = node[step]
    return node
