"""Script of a letter, as Unicode has it."""

import unicodedata
from functools import lru_cache
from typing import Literal, get_args

import regex

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

_NAMES = {"cjk": "Han"}
"""Names in Unicode, where they differ."""
_SCRIPTS = regex.compile(
    r"(?P<shared>[\p{Script=Common}\p{Script=Inherited}])|"
    + "|".join(rf"(?P<{script}>\p{{Script={_NAMES.get(script, script)}}})" for script in get_args(Script))
)


@lru_cache(maxsize=4096)
def script_of(character: str) -> str | None:
    """Return the script of a letter or combining mark: a ``Script`` or ``other``; None for any other character.

    None, too, for letters and marks that several scripts share, such as accents and ー, the Japanese length mark:
    they belong to those around them.
    """
    if unicodedata.category(character)[0] not in "LM":
        return None
    found = _SCRIPTS.match(character)
    script = found.lastgroup if found else "other"
    return None if script == "shared" else script
