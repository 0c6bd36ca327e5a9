"""HTML in pieces: tags, texts and elements that stay, each with its position; nothing of the file is left out."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import NamedTuple

OPAQUE = set(
    [
        "script",
        "style",
        "code",
        "pre",
        "svg",
        "math",
        "textarea",
        "noscript",
        "template",
        "object",
        "iframe",
        "xmp",
        "samp",
        "kbd",
        "var",
    ]
)
"""Elements whose content stays; their attributes may be texts."""
VOID = set(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)


class HtmlToken(NamedTuple):
    """Piece of an HTML file."""

    kind: str
    """``text``, ``start``, ``end``, or ``other`` for comments and declarations."""
    start: int
    tag: str = ""
    attributes: tuple[tuple[str, str | None], ...] = ()


@dataclass
class HtmlPiece:
    """Token with its end, joined with its content if that stays."""

    kind: str
    start: int
    end: int
    tag_end: int
    """End of its first tag."""
    tag: str
    attributes: Mapping[str, str]


class _Tokens(HTMLParser):
    """Reader that notes where each piece of a file begins."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=False)
        self.lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self.found: list[HtmlToken] = []
        last = text.rfind(">") + 1
        self.feed(text[:last])
        self.close()
        if last < len(text):  # text, whatever it looks like: HTMLParser looks for the end of each tag in all of it
            self.found.append(HtmlToken("text", last))

    def note(self, kind: str, tag: str = "", attributes: Sequence[tuple[str, str | None]] = ()) -> None:
        line, column = self.getpos()
        start = self.lines[line - 1] + column
        if kind != "text" or not self.found or self.found[-1].kind != "text":
            self.found.append(HtmlToken(kind, start, tag, tuple(attributes)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note("start", tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note("start" if tag in VOID else "whole", tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self.note("end", tag)

    def handle_data(self, data: str) -> None:
        self.note("text")

    def handle_entityref(self, name: str) -> None:
        self.note("text")

    def handle_charref(self, name: str) -> None:
        self.note("text")

    def handle_comment(self, data: str) -> None:
        self.note("other")

    def handle_decl(self, decl: str) -> None:
        self.note("declaration")

    def handle_pi(self, data: str) -> None:
        self.note("other")

    def unknown_decl(self, data: str) -> None:
        self.note("other")


def pieces(text: str) -> list[HtmlPiece]:
    """Return the pieces of a file, in order and without a gap. An element whose content stays is one piece."""
    tokens = _Tokens(text).found
    ends = [*(token.start for token in tokens[1:]), len(text)][: len(tokens)]
    whole = [
        HtmlPiece(
            token.kind,
            token.start,
            end,
            end,
            token.tag,
            {name: value or "" for name, value in reversed(token.attributes)},
        )
        for token, end in zip(tokens, ends, strict=True)
    ]
    return list(_with_opaque(whole))


def _with_opaque(found: Sequence[HtmlPiece]) -> Iterator[HtmlPiece]:
    """Join each element that stays with its content."""
    number = 0
    while number < len(found):
        piece = found[number]
        number += 1
        if piece.kind == "start" and piece.tag not in VOID and _stays(piece):
            number = _end_of(piece.tag, found, number)
            yield replace(piece, kind="whole", end=found[number - 1].end)
        else:
            yield piece


_ENDED_BY = {
    "li": ("li",),
    **dict.fromkeys(("dt", "dd"), ("dt", "dd")),
    **dict.fromkeys(("option", "optgroup"), ("option", "optgroup")),
    **dict.fromkeys(("td", "th"), ("td", "th", "tr", "tbody", "tfoot")),
    "tr": ("tr", "tbody", "tfoot"),
    "p": (
        "address",
        "article",
        "aside",
        "blockquote",
        "details",
        "div",
        "dl",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "main",
        "menu",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "ul",
    ),
}
"""Elements whose end may be left out, and the tags that end them (HTML, 13.1.2.4); what is around may end, too."""


def _end_of(tag: str, found: Sequence[HtmlPiece], number: int) -> int:
    """Return the number of the first piece behind an element whose content begins at ``number``."""
    inside, count = list[str](), Counter[str]()  # open elements, and how many of each
    while number < len(found):
        piece = found[number]
        if piece.kind == "start" and piece.tag not in VOID:
            if not inside and piece.tag in _ENDED_BY.get(tag, ()):
                return number
            inside.append(piece.tag)
            count[piece.tag] += 1
        elif piece.kind == "end":
            if count[piece.tag]:
                while (closed := inside.pop()) != piece.tag:
                    count[closed] -= 1
                count[piece.tag] -= 1
            elif piece.tag == tag:
                return number + 1
            elif tag in _ENDED_BY:
                return number
        number += 1
    return number


def is_excluded(piece: HtmlPiece) -> bool:
    """Return True for an element whose author marked it as not to be translated."""
    return piece.attributes.get("translate") == "no" or "notranslate" in piece.attributes.get("class", "").split()


def _stays(piece: HtmlPiece) -> bool:
    return piece.tag in OPAQUE or is_excluded(piece)
