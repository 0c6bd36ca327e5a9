"""Properties of runs of text in office documents: which of them make a format, and which show on blanks."""

import re

_VALUE = r"""\s*=\s*(?:"[^"]*"|'[^']*')"""
_MARKS = re.compile(rf"\s(?:dirty|err|smtClean){_VALUE}")
"""Attributes in which PowerPoint's spelling checker notes what it has read."""
_LANGUAGE = re.compile(
    rf"<(?:\w+:)?(?:lang|noProof)(?:\s[^<>]*?)?(?:/>|>\s*</[^<>]*>)|\s(?:lang|altLang|noProof){_VALUE}"
)
"""Properties that tell a spelling checker the language of a run, or to leave it out."""
_EMPTY = re.compile(r"<[^\s<>/]+\s*(?:/>|>\s*</[^<>]*>)")
_OFF = r"""["'](?:none|noStrike|nil|0|false|off)["']"""
_SHOWN = re.compile(
    rf"<(?:\w+:)?(?:u|strike|dstrike|highlight|bdr)(?![\w.-])(?![^<>]*\bval\s*=\s*{_OFF})"
    r"""|<(?:\w+:)?shd\s(?![^<>]*\bfill\s*=\s*["']auto["'])(?![^<>]*\bval\s*=\s*["']nil["'])"""
    rf"|\s(?:u|strike)\s*=\s*(?!{_OFF})"
)
"""Lines, frames and backgrounds."""


def without_marks(properties: str) -> str:
    """Return properties without the marks of a spelling checker, which has not read the translation."""
    return _MARKS.sub("", properties)


def format_of(properties: str) -> str:
    """Return the part of properties that readers see: the same for runs of one format in several languages."""
    rest = _LANGUAGE.sub("", without_marks(properties))
    return "" if _EMPTY.fullmatch(rest) else rest


def show_on_blanks(properties: str) -> bool:
    """Return True if the format shows on blanks too, as an underline does."""
    return _SHOWN.search(properties) is not None
