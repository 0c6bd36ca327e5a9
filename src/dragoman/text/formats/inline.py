"""Text with inline tags: read from the content of an element in XLIFF and TMX, and written back as one.

``joined`` and ``spelled`` are the rule of all formats with tags in their texts: which stretches are tags, and which are
characters that look like one.

White space from the file's layout is distinguished from white space of the text. A line end followed by indentation is
a space, unless ``xml:space`` says otherwise; a line end without indentation is kept. A character reference such as
``&#10;`` is always kept, and is written as a reference again.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from dragoman.text.formats.markup import Element, Unit


class Inline(NamedTuple):
    """Content of an element: its text with the tags in it written out."""

    text: str
    codes: tuple[str, ...] = ()
    """Tags in ``text``, and characters that look like one of them, as they are written in the file, in order."""
    spellings: Mapping[str, str] = {}
    """Spellings of characters that are written as references, such as a line end as ``&#10;``, where there is a
    choice."""


class InlinePart(NamedTuple):
    """Stretch of a text with inline tags."""

    text: str
    is_code: bool = False
    """True for a tag; false for characters, as a reader sees them."""


def joined(parts: Sequence[InlinePart], escape: Callable[[str], str]) -> tuple[str, tuple[str, ...]]:
    """Return the text of these parts, and the codes in it, in order.

    Characters that read like one of the tags, as where a text mentions the tag that it also has, become a code of their
    own, in the file's spelling. So nobody takes one for the other, in whatever order a translation has them.

    Args:
        escape: the function that spells characters in the file.
    """
    known, plain = {part.text for part in parts if part.is_code}, [part.text for part in parts if not part.is_code]
    while new := {escape(code) for code in known if any(code in text for text in plain)} - known:
        known |= new  # whose spelling the text may mention as well
    texts: list[str] = []
    codes: list[str] = []
    for part in parts:
        pieces = ["", part.text] if part.is_code else split_codes(part.text, known)
        found = [piece if part.is_code else escape(piece) for piece in pieces[1::2]]
        pieces[1::2] = found
        texts += pieces
        codes += found
    return "".join(texts), tuple(codes)


def spelled(text: str, codes: Sequence[str], escape: Callable[[str], str]) -> str:
    """Return a text as its file spells it: its codes as they are, each as often as it occurs in them, and all else as
    characters.

    Args:
        escape: the function that spells characters in the file.
    """
    remaining, parts, plain = list(codes), [], ""
    for number, piece in enumerate(split_codes(text, codes)):
        if number % 2 and piece in remaining:
            remaining.remove(piece)
            parts += [escape(plain), piece]
            plain = ""
        else:
            plain += piece
    return "".join([*parts, escape(plain)])


def split_codes(text: str, codes: Collection[str]) -> list[str]:
    """Return what stands before, between and after the codes in a text, and each of them between."""
    pattern = "|".join(map(re.escape, sorted(set(codes), key=len, reverse=True)))
    return re.split(f"({pattern})", text) if pattern else [text]


_CODES = {"bpt", "ept", "ph", "it", "ut", "sub", "x", "bx", "ex", "sc", "ec", "cp", "sm", "em"}
"""Elements that stand for native code, including their content; others, such as ``g`` or ``mrk``, enclose text."""


def read_inline(element: Element, unit: Unit, *, keep_space: bool) -> Inline:
    """Return the content of an element.

    Args:
        keep_space: keep white space as it is; else a line end and the indentation of the next line become a space.
    """
    parts: list[InlinePart] = []
    spellings: dict[str, str] = {}

    def code(start: int, end: int) -> None:
        parts.append(InlinePart(unit.slice(start, end), True))

    def text(start: int, end: int) -> None:
        if start < end:
            parts.append(InlinePart(_read(unit.slice(start, end), keep_space, spellings)))

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
    return Inline(*joined(parts, escaped), spellings)


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
    spellings = dict(original.spellings)
    edge = spellings.pop(" ", None)  # a reference only protects a space at the edge from trimming
    content = spelled(text, original.codes, lambda characters: escaped(characters, spellings))
    return re.sub("^ +| +$", lambda spaces: edge * len(spaces[0]), content) if edge else content


def with_references(text: str, spellings: Mapping[str, str] = {}) -> str:
    """Return characters as HTML and XML have them: ``&``, ``<``, ``>`` and those of ``spellings`` as references."""
    return text.translate(str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", **spellings}))


def escaped(text: str, spellings: Mapping[str, str] = {}) -> str:
    """Return characters as XML, whose readers take a carriage return for a line end.

    Args:
        spellings: further characters that are written as references.
    """
    return with_references(text, {"\r": "&#13;", **spellings})
