"""Files that are translated as they stand: which kinds there are, and how one is opened."""

from collections.abc import Callable
from pathlib import Path

from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension, read_bytes
from dragoman.text.document import FillableDocument
from dragoman.text.filled.po_document import PoDocument
from dragoman.text.formats.tmx import TmxDocument
from dragoman.text.formats.xliff import XliffDocument

Opener = Callable[[bytes, str, str | None, str | None], FillableDocument]
"""Makes a document of its bytes, its name, and the languages of source and target where a person gave them."""
OPENERS: dict[str, Opener] = {
    ".po": lambda content, name, source, target: PoDocument(content, name, target),
    ".pot": lambda content, name, source, target: PoDocument(content, name, target),
    ".xlf": lambda content, name, source, target: XliffDocument(content, name, target),
    ".xliff": lambda content, name, source, target: XliffDocument(content, name, target),
    ".tmx": lambda content, name, source, target: TmxDocument(content, name, source, target),
}
"""Ending -> opener. A further format is a ``Document`` in a file of its own and a line here."""
KINDS = tuple(OPENERS)
"""What the names of documents end in, that of a compressed file aside."""


def open_document(
    path: str | Path, *, source: str | None = None, target: str | None = None, kind: str | None = None
) -> FillableDocument:
    """A PO, XLIFF or TMX file, by its name; plain or compressed.

    Args:
        source: language of the source; a TMX file may need it.
        target: language of the target; a TMX file may need it, an XLIFF file of version 2, or a PO file that does not
            tell its plural forms. It is written into files that do not say it.
        kind: what it is, as the ending of a name (.po), where its own does not tell.

    Raises:
        DataError: it cannot be read as what its name says; the message names file and line.
        ConfigError: its name says something else.
    """
    return document_of(lambda: read_bytes(path), str(path), source=source, target=target, kind=kind or extension(path))


def document_of(
    read: Callable[[], bytes], name: str, *, kind: str, source: str | None = None, target: str | None = None
) -> FillableDocument:
    """As ``open_document``, of the bytes that ``read`` gives; ``name`` is what messages call them.

    Raises:
        DataError, ConfigError: as ``open_document``.
    """
    if kind == ".mo":
        raise DataError(f"{name}: is compiled: translate the .po file that it was made from")
    if (opener := OPENERS.get(kind)) is None:
        raise ConfigError(f"{name}: not a document whose name ends in {', '.join(KINDS)}")
    return opener(read(), name, source, target)
