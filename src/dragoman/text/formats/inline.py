"""Text with inline tags in XLIFF and TMX: read from the content of an element, and written back as one.

White space from the file's layout is distinguished from white space of the text. A line end followed by indentation is
a space, unless ``xml:space`` says otherwise; a line end without indentation is kept. A character reference such as
``&#10;`` is always kept, and is written as a reference again.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from dragoman.text.formats.markup import Element, Unit


class Inline(NamedTuple):
    """Content of an element: its text with the tags in it written out."""

    text: str
    codes: tuple[str, ...] = ()
    """Tags in ``text``, as they are written in the file, in order."""
    spellings: Mapping[str, str] = {}
    """Spellings of characters that are written as references, such as a line end as ``&#10;``, where there is a
    choice."""


_CODES = {"bpt", "ept", "ph", "it", "ut", "sub", "x", "bx", "ex", "sc", "ec", "cp", "sm", "em"}
"""Elements that stand for native code, including their content; others, such as ``g`` or ``mrk``, enclose text."""


def read_inline(element: Element, unit: Unit, *, keep_space: bool) -> Inline:
    """Return the content of an element.

    Args:
        keep_space: keep white space as it is; else a line end and the indentation of the next line become a space.
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
                continue  # read from the file instead, where references are still distinct from plain characters
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


def is_blank(element: Element) -> bool:
    """Return True if an element has no text and no native code, but at most tags that enclose nothing."""
    return all(
        not child.strip()
        if isinstance(child, str)
        else not (child.name in _CODES or _is_protected(child)) and is_blank(child)
        for child in element.children
    )


# ---- characters and how they are written ------------------------------------------------------------

_PIECE = re.compile(
    r"<!\[CDATA\[(?P<cdata>.*?)\]\]>|<!--.*?-->|<\?.*?\?>"
    r"|&(?:\#(?:x(?P<hex>[0-9A-Fa-f]+)|(?P<number>[0-9]+))|(?P<name>\w+));",
    re.DOTALL,
)
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_LAID_OUT = re.compile(r"[ \t]*\n[ \t\n]*")
_SHELTERED = {ord(c): 0xDC00 + ord(c) for c in " \t\n"}
"""White space from references during collapsing: mapped to halves of surrogate pairs, which no file holds."""
_UNSHELTERED = {sheltered: plain for plain, sheltered in _SHELTERED.items()}


def _read(raw: str, keep_space: bool, spellings: dict[str, str]) -> str:
    """Return the text of a stretch of XML without tags, and record in ``spellings`` what is written as references."""

    def decoded(piece: re.Match[str]) -> str:
        if piece["name"] or piece["hex"] or piece["number"]:
            character = _character(piece)
            if character not in "&<>":  # which are written as references anyway
                spellings.setdefault(character, piece[0])
            return character.translate(_SHELTERED)
        return piece["cdata"] or ""  # a comment or an instruction has no text

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


def to_xml(text: str, original: Inline) -> str:
    """Return ``text`` as XML.

    Each of the codes of ``original``, which it translates, stays a tag, as often as it occurs there. Everything else
    becomes characters, written as references where they are in ``original``.
    """
    remaining, spellings = list(original.codes), dict(original.spellings)
    edge = spellings.pop(" ", None)  # a reference only protects a space at the edge from trimming
    parts, at = [], 0
    if remaining:
        for found in re.finditer("|".join(map(re.escape, sorted(set(remaining), key=len, reverse=True))), text):
            if found[0] in remaining:
                remaining.remove(found[0])
                parts += [_escaped(text[at : found.start()], spellings), found[0]]
                at = found.end()
    content = "".join([*parts, _escaped(text[at:], spellings)])
    return re.sub("^ +| +$", lambda spaces: edge * len(spaces[0]), content) if edge else content


def _escaped(text: str, spellings: Mapping[str, str]) -> str:
    return text.translate(str.maketrans({**_ALWAYS, **spellings}))


_ALWAYS = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
