"""Glossary: required and forbidden translations of source terms."""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dragoman.decode.constraints.characters import APART, group
from dragoman.decode.constraints.glossary_entries import GlossaryEntry, read_entries
from dragoman.decode.request import Alternatives
from dragoman.errors import ConfigError
from dragoman.text.cleaning.clean import normalise

__all__ = ["Glossary", "GlossaryEntry"]


class Glossary:
    """A table of entries, and terms that no translation may contain.

    Terms are as in ``terms.Terms``. Those of the source are whole words too, where its script has words, however their
    letters are composed. A translation may also have its first letter in upper case where it begins the text, where
    the term has so in the source, or where the source has several sentences. It may be all in upper case where the term
    is so in the source. Forbidden terms are forbidden in each of these cases. Of overlapping entries the longest
    applies.
    """

    def __init__(self, entries: Iterable[GlossaryEntry] = (), forbidden: Sequence[str] = ()):
        """
        Raises:
            ConfigError: an entry whose source is empty.
        """
        self.forbidden = tuple(_in_any_case(forbidden))
        self.entries: dict[str, list[tuple[re.Pattern[str], GlossaryEntry]]] = {}
        """Entries by the first word of their source; by the empty word in scripts without spaces."""
        for entry in entries:
            term = normalise(entry.source)
            if not term:
                raise ConfigError(f"{entry.source!r}: a term must not be empty")
            first = "" if _is_apart(term[0]) else next(_words(term.casefold()))
            pattern = re.compile(_spaced(term), 0 if entry.match_case else re.IGNORECASE)
            self.entries.setdefault(first, []).append((pattern, replace(entry, source=term)))

    @classmethod
    def read(
        cls,
        path: str | Path,
        forbidden: Sequence[str] = (),
        *,
        source: str | None = None,
        target: str | None = None,
        inflected: bool = False,
    ) -> "Glossary":
        """Read a table (.tsv or .csv) whose first row names its columns: source, target and, optionally, forbidden; or
        a termbase (.tbx).

        Alternatives in a table are separated by bars, as in ``batería|baterías``. In a termbase, any term of a concept
        will do that is not deprecated or superseded; those are forbidden. Acronyms count in their own case only.

        Args:
            source, target: languages of a termbase, and of inflected forms.
            inflected: also accept inflected forms of the terms in both languages (extra ``inflections``).

        Raises:
            DataError: no such file, a missing column or language, or an empty entry; the message names the line.
            ConfigError: a file whose name has another extension, or inflected forms of an unknown language.
        """
        return cls(read_entries(str(path), source, target, inflected=inflected), forbidden)

    def of(self, source: str) -> tuple[tuple[Alternatives, ...], Alternatives]:
        """Return the required and the forbidden terms of a source's translation."""
        source = normalise(source)
        taken: list[tuple[int, int]] = []
        required, forbidden = dict[Alternatives, None](), dict.fromkeys(self.forbidden)
        for start, end, entry in sorted(self._found(source), key=lambda f: (f[0] - f[1], f[0])):
            if any(start < other_end and other_start < end for other_start, other_end in taken):
                continue
            taken.append((start, end))
            if entry.targets:
                required[tuple(_in_case_of(source, start, end, entry.targets))] = None
            forbidden.update(dict.fromkeys(_in_any_case(entry.forbidden)))
        return tuple(required), tuple(forbidden)

    def changes_numbers(self, source: str) -> bool:
        """Return whether a term of the source that is to be translated holds a digit, as 24/7 does."""
        return any(entry.targets and _DIGIT.search(entry.source) for _, _, entry in self._found(normalise(source)))

    def _found(self, source: str) -> Iterator[tuple[int, int, GlossaryEntry]]:
        for word in dict.fromkeys(["", *_words(source.casefold())]):
            for pattern, entry in self.entries.get(word, ()):
                yield from ((start, end, entry) for start, end in _whole(pattern, source))


# ---- words ----------------------------------------------------------------------------------------


def _whole(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Yield the ends of all matches that are whole words, or that begin and end in scripts without spaces."""
    at = 0
    while match := pattern.search(text, at):
        start, end = match.span()
        whole = not _in_one_word(text, start) and not _in_one_word(text, end)
        at = end if whole else start + 1
        if whole:
            yield start, end


def _words(text: str) -> Iterator[str]:
    """Yield the words of a text; each sign, and each letter of a script without spaces, alone."""
    start = 0
    for at in range(1, len(text) + 1):
        if not _in_one_word(text, at):
            if not text[start].isspace():
                yield text[start:at]
            start = at


def _in_one_word(text: str, at: int) -> bool:
    """Return whether the characters before and after a place are in one word."""
    if not 0 < at < len(text):
        return False
    groups = {_group(character) for character in text[at - 1 : at + 1]} - {None}
    return len(groups) <= 1 and APART not in groups


@functools.cache
def _group(character: str) -> int | None:
    """Return the group of a letter, mark or number in ``characters``; APART for other characters.

    Variants of a letter or digit, such as ² and µ, are in its group. None is returned for joiners, which are in the
    group of their neighbours.
    """
    if character in _JOINERS:
        return None
    if unicodedata.category(character)[0] not in "LMN" and character != "_":
        return APART
    return group(unicodedata.normalize("NFKC", character)[-1].encode())


def _is_apart(character: str) -> bool:
    """Return True for letters and their marks in scripts without spaces between words."""
    return _group(character) == APART and unicodedata.category(character)[0] in "LM"


def _spaced(term: str) -> str:
    """Return a pattern that matches the term with any white space between its words."""
    return r"\s+".join(map(re.escape, term.split()))


def _in_case_of(source: str, start: int, end: int, terms: Iterable[str]) -> Iterator[str]:
    """Yield the terms in the cases allowed for an occurrence in the source."""
    all_caps = source[start:end].isupper() and end - start > 1
    capital = (source[start].isupper() and source[:start].strip() != "") or _SENTENCES.search(source) is not None
    for term in terms:
        yield term
        yield _capital(term) if capital else "^" + _capital(term)
        if all_caps:
            yield term.upper()


def _in_any_case(terms: Iterable[str]) -> Iterator[str]:
    for term in terms:
        yield from dict.fromkeys((term, _capital(term), term.upper()))


def _capital(term: str) -> str:
    first = 1 if term.startswith("*") else 0
    return term[:first] + term[first : first + 1].upper() + term[first + 1 :]


_JOINERS = "\u200c\u200d"
_DIGIT = re.compile(r"\d")
_SENTENCES = re.compile(r"[.!?:…]\s+\S")
