"""HTML in pieces: tags, texts and elements that stay, each with its position; nothing of the file is left out."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    return list(_joined(whole))


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


class _Element(NamedTuple):
    """Open element, inside of one that stays or that one itself."""

    tag: str
    kept_by: HtmlPiece | None
    """Element that it stays with; None if it is translated after all."""
    is_opaque: bool
    """True if nothing in it is translated, whatever its author marked."""


def _joined(found: Iterable[HtmlPiece]) -> Iterator[HtmlPiece]:
    """Join each element that stays with its content, as far as nothing in it is translated after all."""
    elements, element, whole = _Elements(), None, None
    for piece in found:
        kept_by = elements.read(piece)
        if whole and kept_by is element:
            whole.end = piece.end
            continue
        if whole:
            yield whole
        element, whole = kept_by, None
        if kept_by is None:
            yield piece
        else:
            tag_end = max(kept_by.tag_end, piece.start)  # behind what is translated, there is no tag of its own
            whole = replace(kept_by, kind="whole", start=piece.start, end=piece.end, tag_end=tag_end)
    if whole:
        yield whole


class _Elements:
    """Open elements, from the outermost that stays on; outside of those that stay, none are noted."""

    def __init__(self) -> None:
        self.opened: list[_Element] = []
        self.count = Counter[str]()
        """Open elements by their tags."""

    def read(self, piece: HtmlPiece) -> HtmlPiece | None:
        """Return the element that a piece stays with, or None; note what the piece opens or closes."""
        if piece.kind == "start":
            while self.opened and piece.tag in _ENDED_BY.get(self.opened[-1].tag, ()):
                self.close()
            if piece.tag not in VOID:
                return self.open(piece)
        elif piece.kind == "end" and self.count[piece.tag]:
            while (closed := self.close()).tag != piece.tag:
                pass
            return closed.kept_by
        elif piece.kind == "end" and self.opened and self.opened[0].tag in _ENDED_BY:
            self.opened, self.count = [], Counter()  # the end of what is around
        return self.opened[-1].kept_by if self.opened else None

    def open(self, piece: HtmlPiece) -> HtmlPiece | None:
        """Note an element, and return the one that it stays with: itself, or one around it."""
        around = self.opened[-1] if self.opened else _Element("", None, False)
        kept_by = around.kept_by or (piece if _stays(piece) else None)
        if around.kept_by and not around.is_opaque and _translate(piece) == "yes":
            kept_by = None
        if self.opened or kept_by:
            self.opened.append(_Element(piece.tag, kept_by, around.is_opaque or piece.tag in OPAQUE))
            self.count[piece.tag] += 1
        return kept_by

    def close(self) -> _Element:
        closed = self.opened.pop()
        self.count[closed.tag] -= 1
        return closed


def is_excluded(piece: HtmlPiece) -> bool:
    """Return True for an element whose author marked it as not to be translated."""
    return _translate(piece) == "no" or "notranslate" in piece.attributes.get("class", "").split()


def _translate(piece: HtmlPiece) -> str:
    """Return an element's attribute ``translate``: ``yes``, ``no``, or another text for none."""
    return (piece.attributes.get("translate", "none") or "yes").lower()


def _stays(piece: HtmlPiece) -> bool:
    return piece.tag in OPAQUE or is_excluded(piece)
