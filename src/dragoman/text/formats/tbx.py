"""TBX, termbases: concepts with their terms in each language (ISO 30042).

Both generations are read: TBX 2 of 2008 (``martif``, ``termEntry``, ``langSet``, ``tig`` or ``ntig``) and TBX 3 of 2019
(``tbx``, ``conceptEntry``, ``langSec``, ``termSec``), whose notes are attributes (DCA) or elements (DCT).
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from dragoman.errors import DataError
from dragoman.text.compressed import read_bytes
from dragoman.text.formats.markup import Element, Unit, as_utf8, units
from dragoman.text.lines import check_string, on_one_line

_ROOTS = ("martif", "tbx", "TBX")
_CONCEPTS = ("termEntry", "conceptEntry")
_LANGUAGES = ("langSet", "langSec")
_HOLDERS = ("tig", "ntig", "termSec")
_PARTS = ("termGrp", "termNoteGrp")
"""Elements between a holder and its term or the notes on it."""
_SHORT = ("acronym", "initialism", "abbreviation")


class TermStatus(Enum):
    """Advice of a termbase on a term (``administrativeStatus``, ``normativeAuthorization``)."""

    preferred = 0
    admitted = 1
    """Also that of a term without advice."""
    avoided = 2
    """Deprecated or superseded."""


class TermbaseTerm(NamedTuple):
    """Term of a concept in one language."""

    text: str
    status: TermStatus
    is_short: bool
    """True for an acronym or abbreviation."""


class TermbaseConcept(NamedTuple):
    """Concept with its terms by language."""

    place: str
    """File and line."""
    terms: dict[str, list[TermbaseTerm]]


def read_tbx(path: str) -> Iterator[TermbaseConcept]:
    """Yield the concepts of a termbase.

    Raises:
        DataError: the file is missing, not TBX or damaged, or lacks a language or a term; the message names the line.
    """
    content = b"".join(as_utf8([read_bytes(path)], path))
    for unit in units([content], path, _root_of(content, path), *_CONCEPTS):
        yield TermbaseConcept(f"{path}:{unit.element.line}", _terms_of(unit, path))


def _root_of(content: bytes, path: str) -> str:
    """Return the name of the outermost element."""
    found = re.search(rb"<(?:[\w.-]+:)?([A-Za-z][\w.-]*)[\s/>]", re.sub(rb"(?s)<!--.*?-->", b"", content))
    name = found[1].decode() if found else ""
    if name not in _ROOTS:
        root = f"its outermost element is <{name}>" if name else "it has no element"
        raise DataError(f"{path}: not a TBX termbase: {root}, not <martif> or <tbx>")
    return name


def _terms_of(unit: Unit, path: str) -> dict[str, list[TermbaseTerm]]:
    found: dict[str, list[TermbaseTerm]] = {}
    for section in unit.element.all(*_LANGUAGES):
        language = section.attributes.get("xml:lang") or section.attributes.get("lang")
        if not language:
            raise DataError(f"{path}:{section.line}: a <{section.name}> without xml:lang: name its language")
        terms = found.setdefault(language.replace("_", "-"), [])
        terms += [_term_of(holder, path) for holder in section.all(*_HOLDERS)]
    return found


def _term_of(holder: Element, path: str) -> TermbaseTerm:
    parts = [holder, *holder.all(*_PARTS)]
    parts += [inner for part in parts[1:] for inner in part.all(*_PARTS)]
    element = next((term for part in parts for term in part.all("term")), None)
    text = on_one_line(element.text) if element is not None else ""
    if not text:
        raise DataError(f"{path}:{holder.line}: a <{holder.name}> without a term: add it, or remove the entry")
    notes = dict(note for part in parts for note in _notes_of(part))
    advice = notes.get("administrativeStatus") or notes.get("normativeAuthorization") or ""
    short = notes.get("termType", "") in _SHORT or (text.isupper() and len(text) > 1)
    return TermbaseTerm(check_string(text, f"{path}:{holder.line}"), _status_of(advice), short)


def _notes_of(part: Element) -> Iterator[tuple[str, str]]:
    """Yield names and values of the notes on a term: ``<termNote type="NAME">``, or an element of that name."""
    for child in part.children:
        if isinstance(child, Element):
            yield child.attributes.get("type", child.name), child.text.strip()


def _status_of(advice: str) -> TermStatus:
    if advice.startswith(("deprecated", "superseded", "obsolete", "forbidden", "notRecommended")):
        return TermStatus.avoided
    return TermStatus.preferred if advice.startswith("preferred") else TermStatus.admitted
