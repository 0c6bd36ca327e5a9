"""Properties of runs of text in office documents: which of them make a format, and which show on blanks."""

import re

from dragoman.text.formats.markup import Element

_VALUE = r"""\s*=\s*(?:"[^"]*"|'[^']*')"""
_MARKS = re.compile(rf"\s(?:dirty|err|smtClean){_VALUE}")
"""Attributes in which PowerPoint's spelling checker notes what it has read."""
_LANGUAGE = re.compile(
    rf"<(?:\w+:)?(?:lang|noProof)(?:\s[^<>]*?)?(?:/>|>\s*</[^<>]*>)|\s(?:lang|altLang|noProof){_VALUE}"
)
"""Properties that tell a spelling checker the language of a run, or to leave it out."""
_UNSEEN = {"rsid", "paragraph-rsid"} | {
    f"{name}{script}"
    for name in ("language", "country", "script", "rfc-language-tag")
    for script in ("", "-asian", "-complex")
}
"""Attributes of OpenDocument's text properties that no reader sees: when a text was edited, and its language."""
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


def is_unseen(style: Element) -> bool:
    """Return True if a style of OpenDocument is one of stretches of text, and changes nothing that readers see."""
    named = {name.rpartition(":")[2]: value for name, value in style.attributes.items()}
    properties = [child for child in style.children if isinstance(child, Element)]
    set_here = {name.rpartition(":")[2] for each in properties for name in each.attributes}
    alone = "parent-style-name" not in named and all(each.name == "text-properties" for each in properties)
    return named.get("family") == "text" and alone and set_here <= _UNSEEN


def show_on_blanks(properties: str) -> bool:
    """Return True if the format shows on blanks too, as an underline does."""
    return _SHOWN.search(properties) is not None
