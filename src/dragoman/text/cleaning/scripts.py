"""Script of a letter, derived from its Unicode name."""

import unicodedata
from functools import lru_cache
from typing import Literal, get_args

Script = Literal[
    "arabic",
    "armenian",
    "bengali",
    "bopomofo",
    "cherokee",
    "cjk",
    "cyrillic",
    "devanagari",
    "ethiopic",
    "georgian",
    "greek",
    "gujarati",
    "gurmukhi",
    "hangul",
    "hebrew",
    "hiragana",
    "kannada",
    "katakana",
    "khmer",
    "lao",
    "latin",
    "malayalam",
    "mongolian",
    "myanmar",
    "oriya",
    "sinhala",
    "syriac",
    "tamil",
    "telugu",
    "thaana",
    "thai",
    "tibetan",
    "tifinagh",
    "yi",
]
"""Names of scripts; ``cjk`` is Chinese characters, in any language."""

_KNOWN = frozenset(get_args(Script))


@lru_cache(maxsize=4096)
def script_of(character: str) -> str | None:
    """Return the script of a letter or combining mark: a ``Script`` or ``other``; None for any other character."""
    if unicodedata.category(character)[0] not in "LM":
        return None
    words = unicodedata.name(character, "").lower().split()
    if words[:1] == ["combining"]:
        return None  # accents are used with several scripts
    return next((word for word in words if word in _KNOWN), "other")
