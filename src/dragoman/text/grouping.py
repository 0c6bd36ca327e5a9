"""How many items of a stream are worked on together."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

Grouping = Callable[[Iterator[Any], int], Iterator[list[Any]]]
"""Of items, and how many a group may have: the groups."""


def in_groups(items: Iterator[T], most: int) -> Iterator[list[T]]:
    """Group items by so many, however long they take to come."""
    while group := list(islice(items, most)):
        yield group
