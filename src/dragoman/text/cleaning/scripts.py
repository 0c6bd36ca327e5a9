"""Which script a letter is written in, as far as its Unicode name tells."""

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
"""``cjk`` is Chinese characters, in whatever language."""

_KNOWN = frozenset(get_args(Script))


@lru_cache(maxsize=4096)
def script_of(character: str) -> str | None:
    """The script of a letter, or of a mark on one: a ``Script`` or ``other``; None for what is no letter."""
    if unicodedata.category(character)[0] not in "LM":
        return None
    words = unicodedata.name(character, "").lower().split()
    if words[:1] == ["combining"]:
        return None  # an accent that goes with several scripts
    return next((word for word in words if word in _KNOWN), "other")
