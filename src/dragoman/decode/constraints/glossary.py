"""Glossary: required and forbidden translations of source terms."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dragoman.decode.constraints.characters import APART, group
from dragoman.decode.constraints.glossary_entries import GlossaryEntry, read_entries
from dragoman.decode.request import Alternatives

__all__ = ["Glossary", "GlossaryEntry"]

_WORD = re.compile(r"\w+|[^\w\s]")


class Glossary:
    """A table of entries, and terms that no translation may contain.

    Terms are as in ``terms.Terms``. A term may also have its first letter in upper case where it begins the
    translation, where it has so in the source, or where the source has several sentences. It may be all in upper case
    where it is so in the source. Forbidden terms are forbidden in each of these cases. Of overlapping entries the
    longest applies.
    """

    def __init__(self, entries: Iterable[GlossaryEntry] = (), forbidden: Sequence[str] = ()):
        self.forbidden = tuple(_in_any_case(forbidden))
        self.entries: dict[str, list[tuple[re.Pattern[str], GlossaryEntry]]] = {}
        """Entries by the first word of their source; by the empty word in scripts without spaces."""
        for entry in entries:
            first, *_ = _WORD.findall(entry.source.casefold())
            apart = _is_apart(entry.source[0])
            pattern_ = re.compile(_pattern(entry.source), 0 if entry.match_case else re.IGNORECASE)
            self.entries.setdefault("" if apart else first, []).append((pattern_, entry))

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
        return any(entry.targets and _DIGIT.search(entry.source) for _, _, entry in self._found(source))

    def _found(self, source: str) -> Iterator[tuple[int, int, GlossaryEntry]]:
        for word in dict.fromkeys(["", *_WORD.findall(source.casefold())]):
            for pattern, entry in self.entries.get(word, ()):
                yield from ((match.start(), match.end(), entry) for match in pattern.finditer(source))


def _pattern(term: str) -> str:
    """Return a pattern of a term as whole words. Scripts without spaces between words have no edges of words."""
    before, after = ("" if _is_apart(term[0]) else r"(?<!\w)"), ("" if _is_apart(term[-1]) else r"(?!\w)")
    return before + _spaced(term) + after


def _is_apart(letter: str) -> bool:
    """Return True for letters and their marks in scripts without spaces between words."""
    return group(letter.encode()) == APART and unicodedata.category(letter)[0] in "LM"


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


_DIGIT = re.compile(r"\d")
_SENTENCES = re.compile(r"[.!?:…]\s+\S")
