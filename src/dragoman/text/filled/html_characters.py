"""Characters of HTML and WebVTT: character references are read, and written again where the source has them."""

import html
import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"&(?:#[xX]?[0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);?")


def with_characters(raw: str, spellings: dict[str, str]) -> str:
    """Return a text with its references read, and record in ``spellings`` which characters they stand for."""

    def read(reference: re.Match[str]) -> str:
        character = html.unescape(reference[0])
        if len(character) == 1 and character not in "&<>" and reference[0].endswith(";"):
            spellings.setdefault(character, reference[0])
        return character

    return _REFERENCE.sub(read, raw)


def with_references(text: str, spellings: Mapping[str, str] = {}) -> str:
    """Return characters as they are written: ``&``, ``<``, ``>`` and those of ``spellings`` as references."""
    written = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return written.translate(str.maketrans(dict(spellings)))
