"""Glossary: required and forbidden translations of source terms."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dragoman.decode.request import Alternatives
from dragoman.errors import DataError
from dragoman.text.formats.tables import table_rows

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class GlossaryEntry:
    """One term of the source and its translations."""

    source: str
    """Term of the source. The entry applies where it occurs as whole words, in upper or lower case."""
    targets: Alternatives
    """Translations, of which one must occur; empty for no requirement."""
    forbidden: Alternatives = ()
    """Translations that must not occur."""


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
        """Entries by the first word of their source."""
        for entry in entries:
            first, *_ = _WORD.findall(entry.source.casefold())
            pattern_ = re.compile(rf"(?<!\w){_spaced(entry.source)}(?!\w)", re.IGNORECASE)
            self.entries.setdefault(first, []).append((pattern_, entry))

    @classmethod
    def read(cls, path: str | Path, forbidden: Sequence[str] = ()) -> "Glossary":
        """Read a table (.tsv or .csv) whose first row names its columns: source, target and, optionally, forbidden.

        Alternatives are separated by bars, as in ``batería|baterías``.

        Raises:
            DataError: no such file, a missing column, or an empty entry; the message names the line.
            ConfigError: a file whose name has no table's extension.
        """
        rows = table_rows(str(path))
        line, header = next(rows, (1, ()))
        names = [name.strip().lower() for name in header]
        for column in ("source", "target", "forbidden"):
            if names.count(column) > 1:
                raise DataError(f"{path}:{line}: {names.count(column)} columns are named {column!r}: name each once")
            if column not in (*names, "forbidden"):
                raise DataError(
                    f"{path}:{line}: no column {column!r}: the first row of a glossary names its columns, source and "
                    f"target; here it holds {', '.join(map(repr, header)) or 'nothing'}"
                )
        return cls(
            (_entry(dict(zip(names, fields, strict=True)), f"{path}:{line}") for line, fields in rows), forbidden
        )

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
        for word in dict.fromkeys(_WORD.findall(source.casefold())):
            for pattern, entry in self.entries.get(word, ()):
                yield from ((match.start(), match.end(), entry) for match in pattern.finditer(source))


def _entry(fields: dict[str, str], where: str) -> GlossaryEntry:
    source, targets, forbidden = (fields.get(name, "") for name in ("source", "target", "forbidden"))
    entry = GlossaryEntry(source.strip(), _alternatives(targets), _alternatives(forbidden))
    if not entry.source or not (entry.targets or entry.forbidden):
        raise DataError(f"{where}: an entry needs a source, and a target or something forbidden")
    return entry


def _alternatives(field: str) -> Alternatives:
    return tuple(term.strip() for term in field.split("|") if term.strip())


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
