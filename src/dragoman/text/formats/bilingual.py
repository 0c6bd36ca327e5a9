"""Files of translation tools with both languages that are read as the documents they are: Qt's ``.ts``, Apple's
``.xcstrings``."""

import importlib
import json
from collections.abc import Iterator
from typing import Any

from dragoman.config import config
from dragoman.errors import DataError
from dragoman.text.compressed import extension, open_bytes, read_bytes
from dragoman.text.formats.plurals import same_language
from dragoman.text.lines import AnnotatedPair, Pair

QT, CATALOG = ".ts", ".xcstrings"
ENDINGS = (QT, CATALOG)


@config
class BilingualFile:
    """Translated entries of a Qt translation file or an Apple string catalog."""

    path: str
    """Path of a .ts or .xcstrings file; untranslated, unfinished and obsolete entries are skipped."""
    source: str | None = None
    """Source language of a string catalog; None for the one that it declares."""
    target: str | None = None
    """Target language of a string catalog; None where it has only one besides the source."""


def read_bilingual_file(cfg: BilingualFile) -> Iterator[Pair]:
    """Yield the translated entries that do not wait for review, one pair for each plural form or variation.

    Raises:
        DataError: the file cannot be read, or its languages are ambiguous; the message names it.
    """
    opening = importlib.import_module("dragoman.text.filled.opening")  # which stands above, and knows every document
    content = read_bytes(cfg.path)
    target = _target_of(content, cfg) if extension(cfg.path) == CATALOG else cfg.target
    document = opening.document_of(lambda: content, cfg.path, kind=extension(cfg.path), target=target)
    for slot in document.slots:
        if slot.filled and not slot.fuzzy and slot.text.strip() and slot.translation.strip():
            yield AnnotatedPair.of(slot.text, slot.translation, slot.notes)


def is_qt(path: str) -> bool:
    """Return True for a translation file of Qt: files of TypeScript have the same extension.

    Raises:
        DataError: it cannot be opened.
    """
    with open_bytes(path) as file:
        return b"<TS" in file.read(4096)


def _target_of(content: bytes, cfg: BilingualFile) -> str | None:
    """Return the target language of a catalog; None for content that is none, which is reported when it is opened."""
    try:
        catalog: Any = json.loads(content)
        strings, source = catalog["strings"], catalog["sourceLanguage"]
        found = [language for entry in strings.values() for language in entry.get("localizations") or {}]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return cfg.target or "en"
    if cfg.source and not same_language(cfg.source, source):
        raise DataError(f"{cfg.path}: its source language is {source}, not {cfg.source}: name {source} as the source")
    others = sorted({language for language in found if language != source})
    exact = cfg.target if cfg.target in others else None
    fitting = [language for language in others if cfg.target and same_language(cfg.target, language)]
    if cfg.target and not fitting:
        raise DataError(
            f"{cfg.path}: has no translations in {cfg.target}; its languages: {', '.join(others) or 'none'}"
        )
    chosen = exact or next(iter(fitting), None) or (others[0] if len(others) == 1 else None)
    if chosen is None:
        raise DataError(
            f"{cfg.path}: which of its languages ({', '.join(others) or 'none'}) is the target? Name both, as with "
            f"--columns {source},de"
        )
    return chosen
