"""Entries of a glossary, read from tables and termbases, with the inflected forms of their terms."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dragoman.decode.request import Alternatives
from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension
from dragoman.text.formats.tables import table_rows
from dragoman.text.formats.tbx import TermbaseConcept, TermbaseTerm, TermStatus, read_tbx
from dragoman.text.inflections import inflected_terms

TERMBASE = ".tbx"
"""Extension of termbases."""


@dataclass(frozen=True)
class GlossaryEntry:
    """One term of the source and its translations."""

    source: str
    """Term of the source. The entry applies where it occurs as whole words, in upper or lower case."""
    targets: Alternatives
    """Translations, of which one must occur; empty for no requirement."""
    forbidden: Alternatives = ()
    """Translations that must not occur."""
    match_case: bool = False
    """True where the source is only meant in its own case, as an acronym is: IT is not it."""


def read_entries(
    path: str, source: str | None = None, target: str | None = None, *, inflected: bool = False
) -> list[GlossaryEntry]:
    """Read the entries of a table (``.tsv``, ``.csv``) or a termbase (``.tbx``).

    Args:
        source, target: languages; a termbase of several needs them, and so do inflected forms.
        inflected: also accept inflected forms, of terms of the source and of their translations.

    Raises:
        DataError: a file that cannot be read, or that lacks a column, a term or a language; the message names the line.
        ConfigError: a file whose name has another extension, or inflected forms of an unknown language.
    """
    if extension(path) == TERMBASE:
        concepts = list(read_tbx(path))
        source, target = _languages_in(concepts, path, source, target)
        entries = _of_concepts(concepts, path, source, target)
    else:
        entries = _of_table(path)
    return list(_inflected(entries, path, source, target)) if inflected else entries


# ---- tables ---------------------------------------------------------------------------------------


def _of_table(path: str) -> list[GlossaryEntry]:
    rows = table_rows(path)
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
    entries = [_of_row(dict(zip(names, fields, strict=True)), f"{path}:{line}") for line, fields in rows]
    if not entries:
        raise DataError(f"{path}: no term in it, only the names of columns")
    return entries


def _of_row(fields: dict[str, str], where: str) -> GlossaryEntry:
    source, targets, forbidden = (fields.get(name, "") for name in ("source", "target", "forbidden"))
    entry = GlossaryEntry(source.strip(), _alternatives(targets), _alternatives(forbidden))
    if not entry.source or not (entry.targets or entry.forbidden):
        raise DataError(f"{where}: an entry needs a source, and a target or something forbidden")
    return entry


def _alternatives(field: str) -> Alternatives:
    return tuple(term.strip() for term in field.split("|") if term.strip())


# ---- termbases ------------------------------------------------------------------------------------


def _languages_in(
    concepts: Sequence[TermbaseConcept], path: str, source: str | None, target: str | None
) -> tuple[str, str]:
    """Return the two languages: those asked for, or the only other one beside the one that was asked for."""
    present = list(dict.fromkeys(language for concept in concepts for language in concept.terms))
    asked = [wanted for wanted in (source, target) if wanted]
    others = [language for language in present if not any(_fits(language, wanted) for wanted in asked)]
    if len(asked) == 1 and len(others) == 1:
        source, target = source or others[0], target or others[0]
    if not source or not target:
        raise DataError(
            f"{path}: which of its languages ({', '.join(present) or 'none'}) is translated into which? Name them "
            "with --from and --to"
        )
    return source, target


def _of_concepts(concepts: Iterable[TermbaseConcept], path: str, source: str, target: str) -> list[GlossaryEntry]:
    """Return one entry for each term of the source language. Terms of several concepts may be translated as in any."""
    found: dict[str, GlossaryEntry] = {}
    present: dict[str, None] = {}
    for concept in concepts:
        present |= dict.fromkeys(concept.terms)
        translations = sorted(_terms_in(concept, target), key=lambda term: term.status.value)
        targets = tuple(term.text for term in translations if term.status is not TermStatus.avoided)
        avoided = tuple(term.text for term in translations if term.status is TermStatus.avoided)
        for term in _terms_in(concept, source) if translations else ():
            entry = GlossaryEntry(term.text, targets, avoided, term.is_short)
            key = term.text if term.is_short else term.text.casefold()
            found[key] = _joined(found[key], entry) if key in found else entry
    if not found:
        raise DataError(
            f"{path}: no concept has terms in {source} and {target}; the languages in it: "
            f"{', '.join(present) or 'none'}"
        )
    return list(found.values())


def _joined(one: GlossaryEntry, other: GlossaryEntry) -> GlossaryEntry:
    targets = tuple(dict.fromkeys((*one.targets, *other.targets)))
    avoided = dict.fromkeys((*one.forbidden, *other.forbidden))
    return replace(one, targets=targets, forbidden=tuple(term for term in avoided if term not in targets))


def _terms_in(concept: TermbaseConcept, language: str) -> list[TermbaseTerm]:
    """Return the terms in a language: of exactly that name, or else of its regions or of the language without one."""
    exact = [terms for name, terms in concept.terms.items() if name.lower() == language.replace("_", "-").lower()]
    found = exact or [terms for name, terms in concept.terms.items() if _fits(name, language)]
    return [term for terms in found for term in terms]


def _fits(name: str, wanted: str) -> bool:
    """Return True for the same language, of which at most one names a region: ``en`` and ``en-GB``."""
    one, other = (language.replace("_", "-").lower() for language in (name, wanted))
    return one == other or one == other.partition("-")[0] or other == one.partition("-")[0]


# ---- inflected forms ------------------------------------------------------------------------------


def _inflected(
    entries: Sequence[GlossaryEntry], path: str, source: str | None, target: str | None
) -> Iterator[GlossaryEntry]:
    """Yield an entry for each form of a source term; entries that name a form themselves come first."""
    if not source or not target:
        raise ConfigError(f"{path}: inflected forms depend on the languages: name both with --from and --to")
    sources = inflected_terms((entry.source for entry in entries if not entry.match_case), source)
    targets = inflected_terms((term for entry in entries for term in (*entry.targets, *entry.forbidden)), target)
    own = {entry.source.casefold() for entry in entries}
    for entry in entries:
        required = tuple(dict.fromkeys(form for term in entry.targets for form in targets[term]))
        avoided = dict.fromkeys(form for term in entry.forbidden for form in targets[term])
        whole = replace(entry, targets=required, forbidden=tuple(form for form in avoided if form not in required))
        yield whole
        for form in sources.get(entry.source, ())[1:]:
            if form.casefold() not in own:
                own.add(form.casefold())
                yield replace(whole, source=form)
