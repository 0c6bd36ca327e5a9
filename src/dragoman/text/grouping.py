"""Grouping the items of a stream into batches."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

Grouping = Callable[[Iterator[Any], int], Iterator[list[Any]]]
"""Function from (items, largest size of a group) to the groups."""


def in_groups(items: Iterator[T], most: int) -> Iterator[list[T]]:
    """Group items by ``most``, however long they take to come."""
    while group := list(islice(items, most)):
        yield group
