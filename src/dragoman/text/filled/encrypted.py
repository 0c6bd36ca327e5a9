"""Encrypted office documents and e-books: told apart from damaged ones, so that the message says what to do."""

import re
from collections.abc import Iterable

from dragoman.errors import DataError
from dragoman.text.filled.archive import ArchiveReader

_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""Beginning of Microsoft's compound files: Word, Excel and PowerPoint before 2007, and every encrypted one since."""
_LISTS = {
    "META-INF/manifest.xml": rb"""\bfull-path\s*=\s*["']([^"']*)["'][^<>]*>\s*<(?:\w+:)?encryption-data\b""",
    "META-INF/encryption.xml": rb"""<(?:\w+:)?CipherReference\b[^<>]*\bURI\s*=\s*["']([^"']*)["']""",
}
"""Members of OpenDocument and of e-books that list the encrypted ones, with the pattern of the names in them."""
_WHOLE = "encrypted-package"
"""Member that is the whole document, encrypted (OpenDocument 1.4)."""


def refuse_compound(raw: bytes, name: str, kind: str) -> None:
    """Refuse a compound file, which is no archive.

    Raises:
        DataError: it is one.
    """
    if raw.startswith(_COMPOUND):
        raise DataError(f"{name}: has a password, or an older format than {kind}: save it as {kind} without a password")


def refuse_encrypted(archive: ArchiveReader, members: Iterable[str]) -> None:
    """Refuse an archive whose texts are encrypted; encrypted fonts are no hindrance.

    Args:
        members: names of those with text.

    Raises:
        DataError: a member with text is encrypted.
    """
    wanted = {_WHOLE, *members}
    for listing, pattern in _LISTS.items():
        if listing not in archive.members:
            continue
        for found in re.findall(pattern, archive.read(listing)):
            if found.decode("utf-8", "replace") in wanted:
                raise DataError(f"{archive.name}: is encrypted: save it without a password or copy protection")
