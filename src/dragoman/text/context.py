"""Document context: the sentences read before a source, a choice of ``data.context``, the same in training and
inference.

A translator reads the preceding sentences, each followed by a separator, and then the sentence itself, which alone it
translates: the concatenation of Tiedemann & Scherrer (2017, section 3), "2+1" with one sentence before. Neighbours are
those of the file, even where cleaning removes them later.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import NonNegativeInt, PositiveInt

from dragoman.config import OneOf, config, from_dict
from dragoman.errors import ConfigError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.formats.pairs import PairSource, read_documents, read_pairs
from dragoman.text.lines import AnnotatedPair, Pair, PrecedingSentences, without_untextual

SEPARATOR = ("⟨sep⟩", "<sep>")
"""Separator after each preceding sentence, by the names it may have in a vocabulary."""


class NotedText(Protocol):
    """Entry of a document: its text, and the notes that the file has on it."""

    @property
    def text(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]: ...


@config
class NoContext:
    """No context: each sentence is read by itself."""

    presence: ClassVar[str] = "no context"
    absence: ClassVar[str] = "no pair has context"

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the marks that the vocabulary needs."""
        return ()

    def limited(self, sentences: int | None) -> "NoContext":
        """Return the same choice.

        Raises:
            ConfigError: some sentences are asked for.
        """
        if sentences:
            raise ConfigError(
                f"context: {sentences} sentences asked for, but this run was trained without context: leave it out, or "
                "train a run with data.context"
            )
        return self

    def check(self, before: Sequence[str]) -> None:
        """Refuse sentences that this run could not read.

        Raises:
            ConfigError: there are some.
        """
        self.limited(len(before))

    def select(self, before: Sequence[str]) -> PrecedingSentences:
        """Return no sentences."""
        return ()

    def in_lines(self, lines: Iterable[str]) -> Iterator[tuple[str, PrecedingSentences]]:
        """Yield each line with no context."""
        return ((line, ()) for line in lines)

    def of_entries(self, entries: Iterable[NotedText]) -> Iterator[PrecedingSentences]:
        """Yield no context for each entry of a document."""
        return (() for _ in entries)

    def after(self, before: Sequence[str], part: str) -> tuple[str, ...]:
        """Return what stands before the next part of a text, after ``part``."""
        return (*before, part)

    def in_pairs(self, source: PairSource) -> Iterator[tuple[Pair, PrecedingSentences]]:
        """Yield each pair of a source with no context."""
        return ((pair, ()) for pair in read_pairs(source))


@config
class SentencesBefore:
    """Preceding sentences of the same document. An empty line ends a document, and so does a boundary of the format."""

    presence: ClassVar[str] = "sentences before them"
    absence: ClassVar[str] = (
        "no pair has a sentence before it: context needs sources with their sentences in the order of documents, with "
        "an empty line between two, or a column that tells them apart (document)"
    )

    sentences: NonNegativeInt = 2
    """Largest number of preceding sentences; fewer where a document begins."""
    characters: PositiveInt = 1000
    """Largest total length in characters: the furthest sentences are left out first, and none is truncated."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the marks that the vocabulary needs."""
        return SEPARATOR[:1]

    def limited(self, sentences: int | None) -> "SentencesBefore":
        """Return the same with fewer sentences; None for no change.

        Raises:
            ConfigError: more than in training.
        """
        if sentences is None:
            return self
        if not 0 <= sentences <= self.sentences:
            raise ConfigError(
                f"context: {sentences} sentences asked for, but this run was trained with {self.sentences}: ask for "
                f"0 to {self.sentences}"
            )
        return dataclasses.replace(self, sentences=sentences)

    def check(self, before: Sequence[str]) -> None:
        """Accept any number: only the nearest are read."""

    def select(self, before: Sequence[str]) -> PrecedingSentences:
        """Select and normalise the sentences of ``before`` that are read with a text; empty ones are left out."""
        tidy = [text for text in map(normalise, before) if text]
        taken, room = list[str](), self.characters
        for text in reversed(tidy[max(0, len(tidy) - self.sentences) :]):
            if len(text) > room:
                break
            taken.append(text)
            room -= len(text)
        return tuple(reversed(taken))

    def in_lines(self, lines: Iterable[str]) -> Iterator[tuple[str, PrecedingSentences]]:
        """Yield each line of a text with its context; an empty line ends a document."""
        document = self._document()
        for line in lines:
            yield line, self.select(document)
            _pass_by(document, line)

    def of_entries(self, entries: Iterable[NotedText]) -> Iterator[PrecedingSentences]:
        """Yield the context of each entry of a document: the texts of those before it."""
        return (before for _, before in self.in_lines(entry.text for entry in entries))

    def after(self, before: Sequence[str], part: str) -> tuple[str, ...]:
        """Return what stands before the next part of a text, after ``part``."""
        return (*before, part)

    def in_pairs(self, source: PairSource) -> Iterator[tuple[Pair, PrecedingSentences]]:
        """Yield each pair of a source with its context. An empty source text ends a document; lines that are empty on
        both sides are not pairs.

        Raises:
            DataError, ConfigError: as ``read_pairs``.
        """
        document = self._document()
        for pair in read_documents(source):
            if pair is None or not any(map(normalise, pair)):
                document.clear()
            else:
                yield pair, self.select(document)
                _pass_by(document, pair.source)

    def _document(self) -> deque[str]:
        return deque(maxlen=self.sentences)


def _pass_by(document: deque[str], text: str) -> None:
    if tidy := normalise(text):
        document.append(tidy)
    else:
        document.clear()


@config
class EntryNotes:
    """Notes of an entry, each followed by the separator: its context (``msgctxt``), then comments of developers.

    Lines of text have none; entries of documents, and pairs of files with such notes, do.
    """

    presence: ClassVar[str] = "notes"
    absence: ClassVar[str] = (
        "no pair has notes: they come from files that have them, such as msgctxt and #. comments in PO, <note> in "
        "XLIFF, or columns named context and comment"
    )

    characters: NonNegativeInt = 200
    """Largest total length in characters: what is longer is shortened after a word; 0 for no notes."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the marks that the vocabulary needs."""
        return SEPARATOR[:1]

    def limited(self, sentences: int | None) -> "EntryNotes":
        """Return the same, or one that reads none for 0.

        Raises:
            ConfigError: sentences are asked for.
        """
        if sentences:
            raise ConfigError(
                f"context: {sentences} sentences asked for, but this run was trained with the notes of entries "
                "(entry_notes): leave it out, or ask for 0 to read none"
            )
        return self if sentences is None else EntryNotes(characters=0)

    def check(self, before: Sequence[str]) -> None:
        """Accept any number of notes."""

    def select(self, before: Sequence[str]) -> PrecedingSentences:
        """Normalise the notes, and shorten them to the largest length; empty ones are left out."""
        taken, room = list[str](), self.characters
        for note in (normalise(without_untextual(note)) for note in before):  # JSON can spell half a surrogate pair
            if len(note) > room:
                note = note[: room + 1].rpartition(" ")[0].rstrip()
            if not note:
                continue
            taken.append(note)
            room -= len(note)
        return tuple(taken)

    def in_lines(self, lines: Iterable[str]) -> Iterator[tuple[str, PrecedingSentences]]:
        """Yield each line with no context."""
        return ((line, ()) for line in lines)

    def of_entries(self, entries: Iterable[NotedText]) -> Iterator[PrecedingSentences]:
        """Yield the notes of each entry of a document."""
        return (self.select(entry.notes) for entry in entries)

    def after(self, before: Sequence[str], part: str) -> tuple[str, ...]:
        """Return what stands before the next part of a text: the notes of its entry."""
        return tuple(before)

    def in_pairs(self, source: PairSource) -> Iterator[tuple[Pair, PrecedingSentences]]:
        """Yield each pair of a source with its notes.

        Raises:
            DataError, ConfigError: as ``read_pairs``.
        """
        for pair in read_pairs(source):
            yield pair, self.select(pair.notes) if isinstance(pair, AnnotatedPair) else ()


ReadContext = NoContext | SentencesBefore | EntryNotes
Context = Annotated[ReadContext, OneOf()]
NO_CONTEXT = NoContext()


def context_of_run(run: Mapping[str, Any]) -> ReadContext:
    """Return the context choice of a run's configuration."""
    return from_dict(Context, (run.get("data") or {}).get("context", "no_context"), where="data.context")


def ids_before(rows: Sequence[Sequence[int]], separator: int, room: float) -> list[int]:
    """Return preceding sentences as ids, each followed by the separator: the nearest that fit into ``room``."""
    found: list[int] = []
    for row in reversed(rows):
        if len(found) + len(row) + 1 > room:
            break
        found = [*row, separator, *found]
    return found
