"""Checks of arguments in Python: a value that only resembles the expected one is refused by name."""

import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, TypeVar

import torch

from dragoman.errors import ConfigError

T = TypeVar("T")

Kind = type | tuple[type, ...]


def check_items(given: Any, argument: str, *, what: str = "strings", kinds: Kind = str) -> list[Any]:
    """Return ``given`` as a list, if it is a list (or a tuple, or another iterable in an order) of ``kinds``.

    Args:
        argument: name of the argument, for the message.
        what: plural of what the list must hold, for the message.

    Raises:
        TypeError: it is something else, or holds something else; the message names the argument and the entry.
    """
    items = check_list(given, argument, what=what)
    for number, item in enumerate(items, 1):
        if not isinstance(item, kinds):
            raise TypeError(f"{argument}: a list of {what} is expected, and entry {number} is {_named(item)}")
    return items


def check_list(given: Any, argument: str, *, what: str) -> list[Any]:
    """Same as ``check_items``, but with entries of any kind."""
    return list(check_iterable(given, argument, what=what))


def check_iterable(given: Any, argument: str, *, what: str) -> Iterable[Any]:
    """Return ``given``, if its entries come in an order and are not the characters of a text.

    Raises:
        TypeError: it is something else.
    """
    if type(given) in (list, tuple):
        return given
    if isinstance(given, str):
        raise TypeError(f"{argument}: a list of {what} is wanted, for one text [text]")
    unordered = isinstance(given, Mapping | Set | bytes | bytearray | memoryview)
    if unordered or not isinstance(given, Iterable) or (isinstance(given, torch.Tensor) and not given.dim()):
        raise TypeError(f"{argument}: a list of {what} is expected, got {_named(given)}")
    return given


def check_pair(given: Any, argument: str, number: int) -> Any:
    """Return entry ``number`` if it holds two strings, with or without further entries after them.

    Raises:
        TypeError: it does not; the message names the argument and the entry.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Sequence) or len(given) < 2:
        raise TypeError(f"{argument}: a list of pairs of strings is expected, and entry {number} is {_named(given)}")
    for text in given[:2]:
        if not isinstance(text, str):
            raise TypeError(f"{argument}: entry {number} must hold two strings, and one of them is {_named(text)}")
    return given


def check_text(given: Any, argument: str) -> str:
    """Return ``given``, if it is a string.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(given, str):
        raise TypeError(f"{argument}: a string is expected, got {_named(given)}")
    return given


def check_kind(given: Any, argument: str, kinds: Kind, *, what: str) -> Any:
    """Return ``given``, if it is one of ``kinds``.

    Args:
        argument: name of the argument, for the message.
        what: the expected value with its article, for the message.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(given, kinds):
        raise TypeError(f"{argument}: {what} is expected, got {_named(given)}")
    return given


def check_choice(given: Any, argument: str, choices: Sequence[str]) -> Any:
    """Return ``given``, if it is one of ``choices``.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(given, str) or given not in choices:
        *others, last = map(repr, choices)
        raise ConfigError(f"{argument}: must be {', '.join(others)} or {last}, got {_named(given)}")
    return given


def check_strings(given: Any, argument: str) -> tuple[str, ...]:
    """Return one string, or several, as a tuple.

    Raises:
        TypeError: it is something else.
    """
    return (given,) if isinstance(given, str) else tuple(check_items(given, argument))


def check_integers(given: Any, argument: str, *, what: str) -> tuple[int, ...]:
    """Return a list of integers, of Python, NumPy or PyTorch, as a tuple.

    Raises:
        TypeError: it is something else.
    """
    return tuple(
        check_integer(one, f"{argument}: entry {number}")
        for number, one in enumerate(check_iterable(given, argument, what=what), 1)
    )


def check_integer(given: Any, argument: str) -> int:
    """Return ``given`` as an integer, if it is one; those of NumPy and PyTorch are some.

    Raises:
        TypeError: it is something else.
    """
    try:
        found = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{argument}: a whole number is expected, got {_named(given)}")
    return found


def check_count(given: Any, argument: str) -> int:
    """Return ``given`` as an integer, if it is one from 1 on.

    Raises:
        TypeError: it is no integer.
        ConfigError: it is less than 1.
    """
    count = check_integer(given, argument)
    if count < 1:
        raise ConfigError(f"{argument}: must be at least 1, got {count}")
    return count


def _named(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, bytes | bytearray):
        return f"{type(value).__name__} (decode it first: .decode())"
    shown = repr(value)
    return f"{type(value).__name__} {shown}" if len(shown) <= 40 else type(value).__name__
