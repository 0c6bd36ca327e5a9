"""What stands before a sentence in its document: a choice of ``data.context``, the same in training and in use.

A translator reads the sentences before, each with a separator behind it, and then its own, which alone it translates:
the concatenation of Tiedemann & Scherrer (2017, section 3), "2+1" with one sentence before. Neighbours are those of the
file, whatever cleaning makes of them later.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import NonNegativeInt, PositiveInt

from dragoman.config import OneOf, config, from_dict
from dragoman.errors import ConfigError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.formats.pairs import PairSource, read_documents, read_pairs
from dragoman.text.lines import Before, Pair

SEPARATOR = ("⟨sep⟩", "<sep>")
"""The mark behind each sentence before, by the names it may go by."""


@config
class NoContext:
    """Each sentence by itself."""

    @property
    def marks(self) -> tuple[str, ...]:
        return ()

    def limited(self, sentences: int | None) -> "NoContext":
        """
        Raises:
            ConfigError: some are asked for.
        """
        if sentences:
            raise ConfigError(
                f"context: {sentences} sentences asked for, and this run has learnt to read none: leave it out, or "
                "train a run with data.context"
            )
        return self

    def check(self, before: Sequence[str]) -> None:
        """
        Raises:
            ConfigError: there are some that this run could not read.
        """
        self.limited(len(before))

    def chosen(self, before: Sequence[str]) -> Before:
        return ()

    def in_lines(self, lines: Iterable[str]) -> Iterator[tuple[str, Before]]:
        return ((line, ()) for line in lines)

    def in_pairs(self, source: PairSource) -> Iterator[tuple[Pair, Before]]:
        return ((pair, ()) for pair in read_pairs(source))


@config
class SentencesBefore:
    """Those before it in its document. An empty line ends a document, and so does whatever the format says."""

    sentences: NonNegativeInt = 2
    """So many of them; fewer where a document begins."""
    characters: PositiveInt = 1000
    """In all of them together: the further ones are left out first, and none is cut."""

    @property
    def marks(self) -> tuple[str, ...]:
        return SEPARATOR[:1]

    def limited(self, sentences: int | None) -> "SentencesBefore":
        """The same with fewer sentences, None for as many.

        Raises:
            ConfigError: more than there were in training.
        """
        if sentences is None:
            return self
        if not 0 <= sentences <= self.sentences:
            raise ConfigError(
                f"context: {sentences} sentences asked for, and this run has learnt to read {self.sentences}: ask for "
                f"0 to {self.sentences}"
            )
        return dataclasses.replace(self, sentences=sentences)

    def check(self, before: Sequence[str]) -> None:
        """There may be more than are read."""

    def chosen(self, before: Sequence[str]) -> Before:
        """Which of the sentences ``before`` a text are read with it, normalised; such as say nothing are none."""
        tidy = [text for text in map(normalise, before) if text]
        taken, room = list[str](), self.characters
        for text in reversed(tidy[max(0, len(tidy) - self.sentences) :]):
            if len(text) > room:
                break
            taken.append(text)
            room -= len(text)
        return tuple(reversed(taken))

    def in_lines(self, lines: Iterable[str]) -> Iterator[tuple[str, Before]]:
        """Each line of a text with what is read before it; one that says nothing ends a document."""
        document = self._document()
        for line in lines:
            yield line, self.chosen(document)
            _pass_by(document, line)

    def in_pairs(self, source: PairSource) -> Iterator[tuple[Pair, Before]]:
        """Each pair of a source with what is read before it. Where the source text says nothing a document ends; lines
        that are empty on both sides are no pairs.

        Raises:
            DataError, ConfigError: as ``read_pairs``.
        """
        document = self._document()
        for pair in read_documents(source):
            if pair is None or not any(map(normalise, pair)):
                document.clear()
            else:
                yield pair, self.chosen(document)
                _pass_by(document, pair.source)

    def _document(self) -> deque[str]:
        return deque(maxlen=self.sentences)


def _pass_by(document: deque[str], text: str) -> None:
    if tidy := normalise(text):
        document.append(tidy)
    else:
        document.clear()


Context = Annotated[NoContext | SentencesBefore, OneOf()]
NO_CONTEXT = NoContext()


def learnt(run: Mapping[str, Any]) -> NoContext | SentencesBefore:
    """What a run of this configuration reads before its sources."""
    return from_dict(Context, (run.get("data") or {}).get("context", "no_context"), where="data.context")


def ids_before(rows: Sequence[Sequence[int]], separator: int, room: float) -> list[int]:
    """Sentences in ids, each with the separator behind it: the nearest that fit into ``room`` as a whole."""
    found: list[int] = []
    for row in reversed(rows):
        if len(found) + len(row) + 1 > room:
            break
        found = [*row, separator, *found]
    return found
