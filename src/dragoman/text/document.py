"""Interface of a document to be translated: slots with a text to translate, and the file's bytes with the slots filled.

A document keeps the bytes it was read from and the position in them of each translation, present or future. Filling
slots replaces those positions and nothing else, so that everything a program cannot judge (comments, layout, line ends,
order) is kept to the byte.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import AnyStr, NamedTuple, Protocol

from dragoman.errors import DataError


class SlotRule(Protocol):
    """Rule that a file has on a translation."""

    @property
    def check(self) -> str:
        """Return the name of the check that it belongs to."""
        ...

    def problem(self, source: str, translation: str, codes: Sequence[str]) -> str | None:
        """Return what is wrong with a translation, without its codes; None if nothing is."""
        ...


@dataclass(frozen=True)
class Slot:
    """Position in a document for one translation."""

    place: str
    """File and line, for messages."""
    text: str
    """Text to translate, with markup as it is written in the file."""
    codes: tuple[str, ...] = ()
    """Parts of ``text`` that are markup in the file's format and must appear in the translation unchanged, in order."""
    filled: bool = False
    """True if it already has a translation."""
    locked: bool = False
    """True if its translation was approved and must stay."""
    key: str = ""
    """Name of the entry, the same in every language's file; empty where the format has none."""
    translation: str = ""
    """Translation that the file has, if it holds both languages; empty where ``filled`` is false."""
    fuzzy: bool = False
    """True if that translation is marked for review."""
    limit: int | None = None
    """Largest number of characters that a translation may have, where the file states one."""
    rules: tuple[SlotRule, ...] = ()
    """Rules of the file on the translation."""
    notes: tuple[str, ...] = ()
    """Notes of the file on the entry: its context, then comments of developers."""


class OtherKindError(DataError):
    """File whose name fits a format, and whose content is of another kind: XML that is not Android's, TypeScript."""


class Filling(NamedTuple):
    """Translation for a slot."""

    text: str
    review: bool = False
    """True if a person should check it; the document marks it in its own way, if it has one."""
    codes: tuple[str, ...] = ()
    """Parts of ``text`` that are markup, where they are not those of the slot: in a translation from another file."""
    remembered: bool = False
    """True if it is from a translation memory; XLIFF 1.2 says so in ``state-qualifier``."""


class FillableDocument(ABC):
    """File whose slots can be filled."""

    bilingual = False
    """True if the file holds both languages, so that translations are added beside their sources."""
    numbered = False
    """True if the entries have no names, so that keys number them: those of two files are the same only if all are."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.notes: list[str] = []
        """Notes for the user about the file, one line each."""

    def pairs_with(self, other: "FillableDocument") -> bool:
        """Return True if equal keys of both documents name the same entry: always, where entries have names."""
        return not self.numbered or [slot.key for slot in self.slots] == [slot.key for slot in other.slots]

    def slots_to_review(self, fillings: Mapping[int, Filling]) -> set[int]:
        """Return which of these slots the filled document marks for a person to check."""
        return {number for number, filling in fillings.items() if filling.review}

    @abstractmethod
    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        """Return the document with these slots, by their index in ``slots``, filled, and the rest unchanged.

        Raises:
            DataError: a translation that cannot be written in the file's encoding.
        """


class Edit(NamedTuple):
    """Replacement of the text from ``start`` to ``end``."""

    start: int
    end: int
    """End, exclusive; equal to ``start`` for an insertion."""
    new: str


class DocumentFile(ABC):
    """File that is written back with edits."""

    name: str

    @abstractmethod
    def with_edits(self, edits: Iterable[Edit]) -> bytes:
        """Return the file's bytes with these edits.

        Raises:
            DataError: a text that cannot be written in the file's encoding.
        """


def splice(text: AnyStr, edits: Iterable[tuple[int, int, AnyStr]]) -> AnyStr:
    """Apply every edit (start, end, new) to ``text``. Positions are those of the original, and no two edits overlap."""
    parts: list[AnyStr] = []
    at = 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        assert at <= start <= end, f"edits overlap at {start}"
        parts += [text[at:start], new]
        at = end
    return text[:0].join([*parts, text[at:]])  # pyright: ignore[reportArgumentType]
