"""Whitelists of configuration parts that an exporter supports: exact types, and a rule for every field of each.

A subclass of a known part, or a part added later, is not known: it may compute something else.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from dragoman.config import kind_of


@dataclasses.dataclass(frozen=True)
class Only:
    """A field that must have one of these values."""

    values: tuple[Any, ...]


FieldRule = Literal["written", "harmless"] | Only
"""A field is written to the other format, changes nothing there, or must have a certain value."""
Whitelist = Mapping[type, Mapping[str, FieldRule]]


def only(*values: Any) -> Only:
    return Only(values)


def unknown_parts(part: Any, whitelist: Whitelist, path: str = "model") -> Iterator[str]:
    """Yield the path and value of everything that an exporter does not know."""
    if type(part) not in whitelist:
        yield f"{path}: {kind_of(type(part))}"
        return
    rules = {"kind": "harmless"} | dict(whitelist[type(part)])  # a part's kind is its type
    for field in dataclasses.fields(part):
        value, rule, below = getattr(part, field.name), rules.get(field.name), f"{path}.{field.name}"
        if rule is None or (isinstance(rule, Only) and value not in rule.values):
            yield f"{below}: {kind_of(type(value)) if dataclasses.is_dataclass(value) else value}"
        elif rule == "written":
            yield from _inside(value, whitelist, below)


def _inside(value: Any, whitelist: Whitelist, path: str) -> Iterator[str]:
    if dataclasses.is_dataclass(value):
        yield from unknown_parts(value, whitelist, path)
    elif isinstance(value, tuple):
        for i, entry in enumerate(value):
            yield from _inside(entry, whitelist, f"{path}.{i}")
