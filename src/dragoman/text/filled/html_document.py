"""HTML: the text of each block is translated as a whole, with its inline markup as code.

Scripts, styles and code stay, and so does what is marked ``translate="no"``. The attributes ``title``, ``alt``,
``placeholder`` and ``aria-label`` are texts, and so are the description and title in the head. White space inside a
text becomes single spaces, as browsers show it.
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dragoman.errors import DataError
from dragoman.text.document import Edit, Filling, splice
from dragoman.text.filled.html_characters import with_characters
from dragoman.text.filled.html_pieces import VOID, HtmlPiece, is_excluded, pieces
from dragoman.text.filled.spans import SpannedDocument, TextFile, Write
from dragoman.text.formats.inline import InlinePart, joined, spelled, with_references
from dragoman.text.formats.markup import encoding_of

INLINE = set(
    [
        "a",
        "abbr",
        "acronym",
        "b",
        "bdi",
        "bdo",
        "big",
        "br",
        "cite",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "img",
        "ins",
        "kbd",
        "label",
        "mark",
        "q",
        "rp",
        "rt",
        "ruby",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "time",
        "tt",
        "u",
        "var",
        "wbr",
        "code",
        "svg",
        "math",
    ]
)
"""Elements inside a text; all others end it."""
ATTRIBUTES: tuple[str, ...] = ("title", "alt", "placeholder", "aria-label")
_DESCRIPTIONS = ("description", "og:title", "og:description", "twitter:title", "twitter:description")
_NO_TEXTS = ("script", "style")
"""Elements whose ``title`` is a name for programs."""
_ATTRIBUTE = re.compile(
    r"""(?<=[\s"'/])(?P<name>[^\s"'<>/=]+)\s*=\s*(?:(?P<quote>["'])(?P<quoted>.*?)(?P=quote)|(?P<bare>[^\s"'=<>`]+))""",
    re.DOTALL,
)
_TAG = re.compile(r"<!--.*?-->|<[^>]*>", re.DOTALL)
_SPACE = " \t\n\r\f"
"""White space of HTML; no-break and ideographic spaces are characters of the text."""


class HtmlDocument(SpannedDocument):
    """Slots of an HTML file: one per block of text, and one per attribute that people read."""

    numbered = True

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read an HTML file; the language that it declares becomes ``target``.

        Raises:
            DataError: not in the encoding that it declares; the message names the line.
        """
        self.text_file = TextFile(raw, name, encodings=_encodings(raw, name))
        super().__init__(self.text_file)
        self.tag_slots: dict[int, list[int]] = {}
        """Slots of attributes by the start of their tag."""
        self.nested_in: dict[int, list[HtmlPiece]] = {}
        """Tags inside of a span, in order, by the span's identity, if any of them has such slots."""
        self.number = 0
        self.read(pieces(self.text_file.text), target)

    def read(self, found: Sequence[HtmlPiece], target: str | None) -> None:
        """Find the slots."""
        block: list[HtmlPiece] = []
        for piece in found:
            if piece.kind in ("start", "whole"):
                self.add_attributes(piece)
            if piece.kind == "start" and piece.tag == "html" and target:
                self.declare(piece, target)
            inside = piece.kind in ("text", "other") or piece.tag in INLINE
            if inside:
                block.append(piece)
            else:
                self.add_block(block)
                block = []
        self.add_block(block)

    def declare(self, piece: HtmlPiece, target: str) -> None:
        """Name the language of the translations in the file."""
        text = self.text_file.text
        for found in _ATTRIBUTE.finditer(text, piece.start, piece.tag_end):
            if found["name"].lower() in ("lang", "xml:lang") and found["quoted"] != "":
                self.declarations.append(Edit(*_value(found), target.replace("_", "-")))

    def add_attributes(self, piece: HtmlPiece) -> None:
        """Add the slots of a tag's attributes."""
        if is_excluded(piece) or piece.tag in _NO_TEXTS:
            return
        text, attributes = self.text_file.text, piece.attributes
        wanted: list[str] = list(ATTRIBUTES)
        if piece.tag == "meta" and {attributes.get("name", "").lower(), attributes.get("property", "")} & {
            *_DESCRIPTIONS
        }:
            wanted.append("content")
        if piece.tag == "input" and attributes.get("type", "").lower() in ("submit", "button", "reset"):
            wanted.append("value")
        for found in _ATTRIBUTE.finditer(text, piece.start, piece.tag_end):
            if found["name"].lower() in wanted:
                first = len(self.slots)
                self.add(
                    _value(found),
                    html.unescape(text[slice(*_value(found))]),
                    place=self.text_file.place(found.start()),
                    key=self.next_key(f"@{found['name'].lower()}"),
                    write=_attribute_writer(found["quote"]),
                )
                self.tag_slots.setdefault(piece.start, []).extend(range(first, len(self.slots)))

    def next_key(self, what: str) -> str:
        """Return a key that tells entries apart by their order in the file."""
        self.number += 1
        return f"{self.number}{what}"

    def add_block(self, block: Sequence[HtmlPiece]) -> None:
        """Add the slot of a block: from its first text to its last, without markup around all of it."""
        kept = self.trimmed(list(block))
        if not any(piece.kind == "text" and self.raw(piece).strip() for piece in kept):
            return
        kept = self.without_outer_space(kept)
        spellings: dict[str, str] = {}
        parts = [
            InlinePart(_read(self.raw(piece), spellings)) if piece.kind == "text" else InlinePart(self.raw(piece), True)
            for piece in kept
        ]
        text, codes = joined(parts, with_references)
        tags = [piece for piece in kept if piece.kind != "text"]
        self.add(
            (kept[0].start, kept[-1].end),
            text,
            place=self.text_file.place(kept[0].start),
            key=self.next_key(""),
            codes=codes,
            write=lambda text, codes: spelled(text, codes, lambda plain: with_references(plain, spellings)),
        )
        if any(self.tag_slots.get(piece.start) for piece in tags):
            self.nested_in[id(self.spans[-1])] = tags

    def trimmed(self, block: list[HtmlPiece]) -> list[HtmlPiece]:
        """Return a block without blank text, comments, pictures and pairs of tags around all of its text."""
        while block:
            first, last = block[0], block[-1]
            if self.is_blank(first) or self.has_no_text(first):
                del block[0]
            elif self.is_blank(last) or self.has_no_text(last):
                del block[-1]
            elif first.kind == "start" and last.kind == "end" and _closes(block, first, last):
                block = block[1:-1]
            elif first.kind == "end":
                del block[0]
            elif last.kind == "start":
                del block[-1]
            else:
                break
        return block

    def without_outer_space(self, block: Sequence[HtmlPiece]) -> list[HtmlPiece]:
        """Return a trimmed block without the white space at its edges, whether text or an element that stays has it."""
        first, *others = block
        first = replace(first, start=first.end - len(self.raw(first).lstrip(_SPACE)))
        *others, last = [first, *others]
        return [*others, replace(last, end=last.start + len(self.raw(last).rstrip(_SPACE)))]

    def is_blank(self, piece: HtmlPiece) -> bool:
        return piece.kind == "other" or (piece.kind == "text" and not self.raw(piece).strip())

    def has_no_text(self, piece: HtmlPiece) -> bool:
        """Return True for a tag that is no part of a sentence at its edge: a picture, or an element without a text."""
        if piece.kind != "whole":
            return piece.kind == "start" and piece.tag in VOID
        content = _TAG.sub("", self.text_file.text[piece.tag_end : piece.end])
        return piece.tag == "svg" or not html.unescape(content).strip()

    def raw(self, piece: HtmlPiece) -> str:
        """Return a piece as it is written."""
        return self.text_file.text[piece.start : piece.end]

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        spans = {id(span): span for span in (self.home[number] for number in fillings)}
        outer = [span for span in spans.values() if id(span) in self.nested_in]
        edits = []
        for span in spans.values():
            if any(other.start <= span.start and span.end <= other.end and other is not span for other in outer):
                continue  # an attribute of a tag inside a text that is written anew
            written = self.written(span, fillings)
            edits.append(
                Edit(span.start, span.end, self.with_tags(written, self.nested_in.get(id(span), ()), fillings))
            )
        return self.file.with_edits([*edits, *(self.declarations if edits else [])])

    def with_tags(self, written: str, tags: Sequence[HtmlPiece], fillings: Mapping[int, Filling]) -> str:
        """Return a written text with the attributes of its tags translated; equal tags are taken in their order."""
        new: dict[str, list[str]] = {}
        for piece in tags:
            new.setdefault(self.raw(piece), []).append(self.translated_tag(piece, fillings))
        if not new:
            return written
        pattern = "|".join(map(re.escape, sorted(new, key=len, reverse=True)))
        return re.sub(pattern, lambda found: new[found[0]].pop(0) if new[found[0]] else found[0], written)

    def translated_tag(self, piece: HtmlPiece, fillings: Mapping[int, Filling]) -> str:
        """Return a tag with its attributes translated."""
        spans = [self.home[number] for number in self.tag_slots.get(piece.start, ()) if number in fillings]
        edits = [(s.start - piece.start, s.end - piece.start, self.written(s, fillings)) for s in spans]
        return splice(self.raw(piece), edits)


def _value(found: re.Match[str]) -> tuple[int, int]:
    """Return the span of an attribute's value, without its quotes."""
    return found.span("quoted" if found["quote"] else "bare")


def _encodings(raw: bytes, name: str) -> list[str]:
    head = raw[:2048]
    declared = re.search(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)""", head, re.IGNORECASE)
    encoding = declared[1].decode() if declared else encoding_of(head)
    try:
        "".encode(encoding)
    except LookupError:
        if _is_utf8(raw):
            return ["utf-8"]
        raise DataError(f"{name}: declares the encoding {encoding}, which is unknown: convert it to UTF-8") from None
    latin = encoding.lower() in ("iso-8859-1", "latin1", "us-ascii")  # which browsers read as Windows-1252
    return list(dict.fromkeys(["utf-8", "cp1252" if latin else encoding]))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(raw: str, spellings: dict[str, str]) -> str:
    """Return the text of a stretch without tags, and record in ``spellings`` what is written as references."""
    parts = re.split(f"([{_SPACE}]+)", raw)
    return "".join(" " if i % 2 else with_characters(part, spellings) for i, part in enumerate(parts))


def _attribute_writer(quote: str | None) -> Write:
    """Return the function that writes a value between quotes, or with quotes around it where it has none."""

    def write(text: str, _: Sequence[str]) -> str:
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        if quote is None:
            return '"' + escaped.replace('"', "&quot;") + '"'
        return escaped.replace(quote, "&quot;" if quote == '"' else "&#39;")

    return write


def _closes(block: Sequence[HtmlPiece], first: HtmlPiece, last: HtmlPiece) -> bool:
    """Return True if the last piece of a block closes the first, and nothing else does."""
    depth = 0
    for piece in block:
        if piece.tag == first.tag and piece.kind in ("start", "end"):
            depth += 1 if piece.kind == "start" else -1
            if depth == 0:
                return piece is last
    return False
