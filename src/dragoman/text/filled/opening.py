"""Opening documents that are translated in place: the known formats by extension."""

import importlib
from collections.abc import Callable
from pathlib import Path

from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension, read_bytes
from dragoman.text.document import FillableDocument
from dragoman.text.filled.po_document import PoDocument
from dragoman.text.formats.tmx import TmxDocument
from dragoman.text.formats.xliff import XliffDocument

Opener = Callable[[bytes, str, str | None, str | None], FillableDocument]
"""Function that makes a document from its bytes, its name, and the source and target languages where the user gave
them."""


def _lazily(module: str, kind: str) -> Opener:
    """Return the opener of a class whose module is imported when it is first needed."""

    def opener(content: bytes, name: str, source: str | None, target: str | None) -> FillableDocument:
        found = getattr(importlib.import_module(f"dragoman.text.filled.{module}"), kind)
        document = found(content, name, source, target)
        if not document.slots:
            document.notes.append(f"{name}: has no text to translate")
        return document

    return opener


OPENERS: dict[str, Opener] = {
    ".po": lambda content, name, source, target: PoDocument(content, name, target),
    ".pot": lambda content, name, source, target: PoDocument(content, name, target),
    ".xlf": lambda content, name, source, target: XliffDocument(content, name, target),
    ".xliff": lambda content, name, source, target: XliffDocument(content, name, target),
    ".tmx": lambda content, name, source, target: TmxDocument(content, name, source, target),
    ".json": _lazily("json_document", "JsonDocument"),
    ".arb": _lazily("json_document", "ArbDocument"),
    ".xcstrings": _lazily("string_catalog", "StringCatalog"),
    ".xml": _lazily("android_resources", "AndroidResources"),
    ".strings": _lazily("apple_strings", "AppleStrings"),
    ".stringsdict": _lazily("stringsdict", "StringsDict"),
    ".resx": _lazily("resx", "ResxDocument"),
    ".resw": _lazily("resx", "ResxDocument"),
    ".ts": _lazily("qt_linguist", "QtDocument"),
    ".properties": _lazily("properties", "PropertiesDocument"),
    ".yml": _lazily("yaml_document", "YamlDocument"),
    ".yaml": _lazily("yaml_document", "YamlDocument"),
    ".ftl": _lazily("fluent", "FluentDocument"),
    ".srt": _lazily("subtitles", "SubtitleDocument"),
    ".vtt": _lazily("subtitles", "SubtitleDocument"),
    ".html": _lazily("html_document", "HtmlDocument"),
    ".htm": _lazily("html_document", "HtmlDocument"),
    ".xhtml": _lazily("html_document", "HtmlDocument"),
    ".md": _lazily("markdown_document", "MarkdownDocument"),
    ".markdown": _lazily("markdown_document", "MarkdownDocument"),
    ".docx": _lazily("office", "OfficeDocument"),
    ".pptx": _lazily("office", "OfficeDocument"),
    ".xlsx": _lazily("office", "OfficeDocument"),
    ".odt": _lazily("office", "OfficeDocument"),
    ".ods": _lazily("office", "OfficeDocument"),
    ".odp": _lazily("office", "OfficeDocument"),
    ".epub": _lazily("office", "OfficeDocument"),
    ".csv": _lazily("table_document", "TableDocument"),
    ".tsv": _lazily("table_document", "TableDocument"),
}
"""Openers by extension. A further format is a ``FillableDocument`` in its own file and a line here."""
KINDS = tuple(OPENERS)
"""Extensions of documents, without that of compression."""


def open_document(
    path: str | Path, *, source: str | None = None, target: str | None = None, kind: str | None = None
) -> FillableDocument:
    """Open a PO, XLIFF or TMX file, plain or compressed, by its extension.

    Args:
        source: source language; a TMX file may need it.
        target: target language; needed by some TMX files, XLIFF files of version 2, and PO files without plural forms
            in their header. It is written into files that do not declare it.
        kind: extension of the format (.po), for names that do not tell.

    Raises:
        DataError: it cannot be read as that format; the message names file and line.
        ConfigError: its extension is of another format.
    """
    return document_of(lambda: read_bytes(path), str(path), source=source, target=target, kind=kind or extension(path))


def document_of(
    read: Callable[[], bytes], name: str, *, kind: str, source: str | None = None, target: str | None = None
) -> FillableDocument:
    """Open a document from the bytes that ``read`` returns, as ``open_document`` does; messages call it ``name``.

    Raises:
        DataError, ConfigError: as ``open_document``.
    """
    if kind == ".mo":
        raise DataError(f"{name}: is compiled: translate the .po file it was made from")
    if (opener := OPENERS.get(kind)) is None:
        raise ConfigError(f"{name}: not a document whose name ends in {', '.join(KINDS)}")
    return opener(read(), name, source, target)
