"""Files that are translated as they stand: which kinds there are, and how one is opened."""

from pathlib import Path

from dragoman.errors import ConfigError, DataError
from dragoman.text.filled.po_document import PoDocument
from dragoman.text.filled.slots import Document
from dragoman.text.formats.compressed import read_bytes
from dragoman.text.formats.tmx import TmxDocument
from dragoman.text.formats.xliff import XliffDocument

KINDS = (".po", ".pot", ".xlf", ".xliff", ".tmx")
"""What the names of documents end in."""


def open_document(path: str | Path, *, source: str | None = None, target: str | None = None) -> Document:
    """A PO, XLIFF or TMX file, by its name.

    Args:
        source: language of the source; a TMX file may need it.
        target: language of the target; a TMX file may need it, an XLIFF file of version 2, or a PO file that does not
            tell its plural forms. It is written into files that do not say it.

    Raises:
        DataError: it cannot be read as what its name says; the message names file and line.
        ConfigError: its name says something else.
    """
    name = str(path)
    match Path(path).suffix.lower():
        case ".po" | ".pot":
            return PoDocument(read_bytes(path), name, target)
        case ".xlf" | ".xliff":
            return XliffDocument(read_bytes(path), name, target)
        case ".tmx":
            return TmxDocument(read_bytes(path), name, source, target)
        case ".mo":
            raise DataError(f"{name}: is compiled: translate the .po file that it was made from")
    raise ConfigError(f"{name}: not a document whose name ends in {', '.join(KINDS)}")
