"""Text with tags in it, as XLIFF and TMX have it: read from the content of an element, and written as one.

White space that a program laid out is told from white space that is meant: a line end with indentation behind it is a
space, unless ``xml:space`` says otherwise; one without is kept; and what is written as a character reference such as
``&#10;`` always is, and comes out as a reference again.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from dragoman.text.formats.markup import Element, Unit


class Inline(NamedTuple):
    """The content of an element: its text with the tags in it written out."""

    text: str
    codes: tuple[str, ...] = ()
    """The pieces of ``text`` that are tags, as they stand in the file, in order."""
    spellings: Mapping[str, str] = {}
    """Characters that are written as references, such as a line end as ``&#10;``, and how, where that is a choice."""


_CODES = {"bpt", "ept", "ph", "it", "ut", "sub", "x", "bx", "ex", "sc", "ec", "cp", "sm", "em"}
"""Elements that stand for native code, content and all; others, such as ``g`` or ``mrk``, enclose text."""


def inline(element: Element, unit: Unit, *, keep_space: bool) -> Inline:
    """Return what an element holds.

    Args:
        keep_space: white space means what it is; else a line end and what indents the next line are a space.
    """
    parts: list[str] = []
    codes: list[str] = []
    spellings: dict[str, str] = {}

    def code(start: int, end: int) -> None:
        codes.append(unit.slice(start, end))
        parts.append(codes[-1])

    def text(start: int, end: int) -> None:
        if start < end:
            parts.append(_read(unit.slice(start, end), keep_space, spellings))

    def walk(outer: Element) -> None:
        at = outer.inside
        for child in outer.children:
            if isinstance(child, str):
                continue  # read from the file, where references can be told from what they stand for
            text(at, child.start)
            if child.is_one_tag or child.name in _CODES or _is_protected(child):
                code(child.start, child.end)
            else:
                code(child.start, child.inside)
                walk(child)
                code(child.outside, child.end)
            at = child.end
        text(at, outer.outside)

    walk(element)
    return Inline("".join(parts), tuple(codes), spellings)


def _is_protected(element: Element) -> bool:
    return element.attributes.get("translate") == "no" or element.attributes.get("mtype") == "protected"


# ---- characters and how they are written ------------------------------------------------------------

_PIECE = re.compile(
    r"<!\[CDATA\[(?P<cdata>.*?)\]\]>|<!--.*?-->|<\?.*?\?>"
    r"|&(?:\#(?:x(?P<hex>[0-9A-Fa-f]+)|(?P<number>[0-9]+))|(?P<name>\w+));",
    re.DOTALL,
)
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_LAID_OUT = re.compile(r"[ \t]*\n[ \t\n]*")
_SHELTERED = {ord(c): 0xDC00 + ord(c) for c in " \t\n"}
"""White space from references, while other white space is looked at: halves of surrogate pairs, which no file holds."""
_UNSHELTERED = {there: here for here, there in _SHELTERED.items()}


def _read(raw: str, keep_space: bool, spellings: dict[str, str]) -> str:
    """Return the text that a stretch of XML without tags means; what is written as references goes to ``spellings``."""

    def decoded(piece: re.Match[str]) -> str:
        if piece["name"] or piece["hex"] or piece["number"]:
            character = _character(piece)
            if character not in "&<>":  # which are written as references anyway
                spellings.setdefault(character, piece[0])
            return character.translate(_SHELTERED)
        return piece["cdata"] or ""  # else a comment or an instruction, which says nothing

    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    if "&" in text or "<" in text:
        text = _PIECE.sub(decoded, text)
    if not keep_space:
        text = _LAID_OUT.sub(lambda space: space[0] if space[0].endswith("\n") else " ", text)
    return text.translate(_UNSHELTERED)


def _character(reference: re.Match[str]) -> str:
    if reference["name"]:
        return _NAMED[reference["name"]]
    return chr(int(reference["hex"], 16) if reference["hex"] else int(reference["number"]))


def written(text: str, original: Inline) -> str:
    """Return ``text`` as it stands in XML.

    Each of the codes of ``original``, which it translates, is a tag, as often as it is there. All else is characters,
    written as references where they are in ``original``.
    """
    left, spellings = list(original.codes), dict(original.spellings)
    edge = spellings.pop(" ", None)  # a reference keeps it from being trimmed, and so does no good inside
    parts, at = [], 0
    if left:
        for found in re.finditer("|".join(map(re.escape, sorted(set(left), key=len, reverse=True))), text):
            if found[0] in left:
                left.remove(found[0])
                parts += [_escaped(text[at : found.start()], spellings), found[0]]
                at = found.end()
    whole = "".join([*parts, _escaped(text[at:], spellings)])
    return re.sub("^ +| +$", lambda spaces: edge * len(spaces[0]), whole) if edge else whole


def _escaped(text: str, spellings: Mapping[str, str]) -> str:
    return text.translate(str.maketrans({**_ALWAYS, **spellings}))


_ALWAYS = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
