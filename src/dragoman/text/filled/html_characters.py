"""Character references of HTML and WebVTT, read as the characters that they stand for."""

import html
import re

_REFERENCE = re.compile(r"&(?:#[xX]?[0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);?")


def with_characters(raw: str, spellings: dict[str, str]) -> str:
    """Return a text with its references read, and record in ``spellings`` which characters they stand for."""

    def read(reference: re.Match[str]) -> str:
        character = html.unescape(reference[0])
        if len(character) == 1 and character not in "&<>" and reference[0].endswith(";"):
            spellings.setdefault(character, reference[0])
        return character

    return _REFERENCE.sub(read, raw)
