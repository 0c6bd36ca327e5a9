"""What every document to be translated offers: slots with a text to translate, and its bytes with the slots filled.

A document keeps the bytes it was read from and knows where in them each translation stands, or would stand. Filling
slots replaces those places and nothing else, so that all that a program cannot know the worth of (comments, layout,
line ends, order) is kept to the byte.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import AnyStr, NamedTuple


@dataclass(frozen=True)
class Slot:
    """A place for a translation."""

    place: str
    """File and line, for messages about it."""
    text: str
    """What is to be translated, markup written out as it stands in the file."""
    codes: tuple[str, ...] = ()
    """Pieces of ``text`` that are markup to the file's format and must be in the translation as they are, in order."""
    filled: bool = False
    """Whether a translation is there already."""
    locked: bool = False
    """Whether the translation that is there was approved and is to stay."""


class Filling(NamedTuple):
    text: str
    review: bool = False
    """Whether a person should look at it: the document says so in its own way, if it has one."""


class FillableDocument(ABC):
    """A file whose slots can be filled."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.notes: list[str] = []
        """What its owner should know about the file, one line each."""

    def to_review(self, fillings: Mapping[int, Filling]) -> set[int]:
        """Return which of these slots the filled document marks for a person to look at."""
        return {number for number, filling in fillings.items() if filling.review}

    @abstractmethod
    def filled(self, fillings: Mapping[int, Filling]) -> bytes:
        """The document with these slots, by their number in ``slots``, filled, and all else as it was.

        Raises:
            DataError: a translation that cannot be written in the file's encoding.
        """


class Edit(NamedTuple):
    start: int
    end: int
    """What stands from ``start`` to ``end`` is replaced; nothing, where they are equal."""
    new: str


def splice(text: AnyStr, edits: Iterable[tuple[int, int, AnyStr]]) -> AnyStr:
    """``text`` with every edit (start, end, new) done; places count in ``text`` as it was, and no two edits overlap."""
    parts: list[AnyStr] = []
    at = 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        assert at <= start <= end, f"edits overlap at {start}"
        parts += [text[at:start], new]
        at = end
    return text[:0].join([*parts, text[at:]])  # pyright: ignore[reportArgumentType]
