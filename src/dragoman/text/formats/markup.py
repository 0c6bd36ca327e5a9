"""XML with the position of everything in it, read a piece at a time: the base of XLIFF and TMX.

Whatever a file's encoding, it is parsed as UTF-8, and positions count bytes of that. A document type may be named but
is not fetched, and entities may not be declared: nothing outside the file is read, and nothing in it can expand.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from dragoman.errors import DataError
from dragoman.text.document import DocumentFile, Edit, OtherKindError, splice
from dragoman.text.lines import check_string

DEPTH = 100
"""Largest nesting depth of elements."""
CHUNK = 1 << 16


@dataclass(eq=False)
class Element:
    """Element with its positions in the file."""

    name: str
    """Name without its namespace's prefix."""
    attributes: dict[str, str]
    line: int
    start: int
    inside: int
    """End of its start tag."""
    outside: int = 0
    """Start of its end tag; the same as ``inside`` and ``end`` for an empty-element tag."""
    end: int = 0
    children: list["Element | str"] = field(default_factory=list)

    @property
    def is_one_tag(self) -> bool:
        """Return True for an empty-element tag."""
        return self.outside == self.end

    @property
    def text(self) -> str:
        """Return all text in the element, the tags in it left out."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def find(self, name: str) -> "Element | None":
        """Return the first child of this name, if any."""
        return next(self.all(name), None)

    def all(self, *names: str) -> Iterator["Element"]:
        """Return the children of these names."""
        return (child for child in self.children if isinstance(child, Element) and child.name in names)


class Unit(NamedTuple):
    """Requested element, complete, with its ancestors."""

    element: Element
    around: tuple[Element, ...]
    """Ancestors from the root inwards, without their children."""
    raw: bytes
    """Bytes of the element as they are in the file."""

    def slice(self, start: int, end: int) -> str:
        """Return the text between two positions."""
        return self.raw[start - self.element.start : end - self.element.start].decode()

    def inherited(self, attribute: str, *inner: Element) -> str | None:
        """Return the attribute's value on the innermost element that has it."""
        chain = (*self.around, self.element, *inner)
        return next((e.attributes[attribute] for e in reversed(chain) if attribute in e.attributes), None)


def units(pieces: Iterable[bytes], name: str, root: str, *wanted: str) -> Iterator[Unit]:
    """Yield the elements of these names, in the order of their ends; memory holds one of them at a time.

    Args:
        pieces: the file, in UTF-8.
        root: name that the outermost element must have.

    Raises:
        DataError: not well-formed, another root, entities of its own; the message names file and line.
    """
    reader = _Reader(name, root, wanted)
    for piece in pieces:
        yield from reader.read(piece)
    yield from reader.read(b"", last=True)


# ---- parsing --------------------------------------------------------------------------------------

_START_TAG = re.compile(rb"""<(?:[^<>"']|"[^"]*"|'[^']*')*>""")


class _Reader:
    def __init__(self, name: str, root: str, wanted: tuple[str, ...]):
        self.name, self.root, self.wanted = name, root, wanted
        self.open: list[Element] = []
        self.inside = 0
        """Number of open elements that are wanted or inside a wanted one."""
        self.done: list[Unit] = []
        self.buffer, self.offset = bytearray(), 0
        """Bytes that may still be needed, and their offset in the file."""
        self.parser: Any = expat.ParserCreate("UTF-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.begin
        self.parser.EndElementHandler = self.finish
        self.parser.CharacterDataHandler = self.characters
        self.parser.EntityDeclHandler = self.entity
        self.parser.SkippedEntityHandler = self.unknown_entity

    def read(self, piece: bytes, *, last: bool = False) -> Iterator[Unit]:
        self.buffer += piece
        try:
            self.parser.Parse(piece, last)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise DataError(f"{self.name}:{error.lineno}: not well-formed XML ({reason}): correct it there") from None
        yield from self.done
        self.done.clear()
        if not self.inside:
            self.forget(self.parser.CurrentByteIndex)

    def forget(self, before: int) -> None:
        if before > self.offset:
            del self.buffer[: before - self.offset]
            self.offset = before

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        at, name = self.parser.CurrentByteIndex, name.rpartition(":")[2]
        if not self.open and name != self.root:
            raise self.wrong(f"its outermost element is <{name}>, not <{self.root}>: this is another kind of file")
        if len(self.open) == DEPTH:
            raise self.wrong(f"elements nested more than {DEPTH} deep")
        inside = self.end_of_tag(at)
        element = Element(name, attributes, self.parser.CurrentLineNumber, at, inside)
        if self.buffer[inside - self.offset - 2 : inside - self.offset] == b"/>":
            element.outside = element.end = element.inside
        if self.inside:
            self.open[-1].children.append(element)
        self.open.append(element)
        self.inside += bool(self.inside) or name in self.wanted

    def end_of_tag(self, at: int) -> int:
        tag = _START_TAG.match(self.buffer, at - self.offset)
        assert tag, "a start tag is complete before it is reported"
        return tag.end() + self.offset

    def finish(self, _: str) -> None:
        element = self.open.pop()
        if not element.end:
            element.outside = self.parser.CurrentByteIndex
            element.end = self.buffer.index(b">", element.outside - self.offset) + 1 + self.offset
        if self.inside:
            self.inside -= 1
            if not self.inside:
                raw = bytes(self.buffer[element.start - self.offset : element.end - self.offset])
                self.done.append(Unit(element, tuple(self.open), raw))

    def characters(self, text: str) -> None:
        if self.inside:
            self.open[-1].children.append(check_string(text, f"{self.name}:{self.parser.CurrentLineNumber}"))

    def entity(self, name: str, *_: object) -> None:
        raise self.wrong(f"declares an entity ({name}), which is not supported: write out its value")

    def unknown_entity(self, name: str, *_: object) -> None:
        raise self.wrong(f"&{name}; is not an entity of XML itself: write the character itself")

    def wrong(self, reason: str) -> DataError:
        return DataError(f"{self.name}:{self.parser.CurrentLineNumber}: {reason}")


# ---- encodings ------------------------------------------------------------------------------------


def encoding_of(head: bytes) -> str:
    """Return the encoding of a file from its first bytes: by its byte-order mark, or by its declaration."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    declared = re.match(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""", head)
    encoding = declared[1].decode() if declared else "UTF-8"
    return (
        "UTF-8" if encoding.upper() in ("UTF-16", "UTF8") else encoding
    )  # a readable declaration of UTF-16 cannot be true


_MARKS = {
    codecs.BOM_UTF16_LE: "UTF-16-LE",
    codecs.BOM_UTF16_BE: "UTF-16-BE",
    b"<\0": "UTF-16-LE",
    b"\0<": "UTF-16-BE",
}


def as_utf8(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Convert a file in any encoding to UTF-8, its byte-order mark included.

    Raises:
        DataError: it is not in the encoding it declares; the message names the line.
    """
    decoder, line = None, 1
    try:
        for piece in pieces:
            if decoder is None:
                decoder = codecs.getincrementaldecoder(encoding_of(piece))()
            text = decoder.decode(piece)
            line += text.count("\n")
            yield text.encode()
        if decoder is not None:
            yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        place = f"{name}:{line}" if line == 1 else f"{name}: after line {line}"
        raise DataError(f"{place}: not in the encoding it declares ({error}): convert it to UTF-8") from None
    except LookupError as error:
        raise DataError(f"{name}:1: {error}: convert the file to UTF-8") from None


# ---- writing back ---------------------------------------------------------------------------------


class MarkupSource(DocumentFile):
    """Whole XML file, to be written back with edits: positions count bytes of its UTF-8."""

    def __init__(self, raw: bytes, name: str):
        self.name, self.encoding = name, encoding_of(raw)
        self.utf8 = b"".join(as_utf8([raw], name))
        if self.utf8.decode().encode(self.encoding) != raw:
            raise DataError(f"{name}: {self.encoding} cannot be written back to the byte: convert it to UTF-8")
        self.line_end = "\r\n" if b"\r\n" in self.utf8 else "\n"

    def with_edits(self, edits: Iterable[Edit]) -> bytes:
        """Return the file's bytes with the edits, in its encoding.

        Raises:
            DataError: the result would not be XML, for example with a control character.
        """
        edits = [Edit(start, end, _LINE_ENDS.sub(self.line_end, new)) for start, end, new in edits]
        changed = splice(self.utf8, [(start, end, new.encode()) for start, end, new in edits])
        try:
            expat.ParserCreate("UTF-8").Parse(changed, True)
        except expat.ExpatError as error:
            raise DataError(f"{self.name}: a translation cannot be written as XML ({error})") from None
        if self.encoding == "UTF-8":
            return changed
        return changed.decode().encode(self.encoding, "xmlcharrefreplace")


_LINE_ENDS = re.compile("\r?\n")


def check_root(markup: MarkupSource, root: str, kind: str) -> None:
    """Check that the outermost element of a file has this name.

    Raises:
        DataError: it has another; the message says which.
    """
    found: list[str] = []
    parser = expat.ParserCreate("UTF-8")
    parser.StartElementHandler = lambda name, _: found.append(name)
    try:
        parser.Parse(markup.utf8, True)
    except expat.ExpatError as error:
        if not found or found[0].rpartition(":")[2] == root:
            reason = expat.ErrorString(error.code)
            raise DataError(f"{markup.name}:{error.lineno}: not well-formed XML ({reason})") from None
    if found[0].rpartition(":")[2] != root:
        raise OtherKindError(f"{markup.name}: not {kind}: its outermost element is <{found[0]}>, not <{root}>")


def with_attribute(tag: str, name: str, value: str) -> str:
    """Return a start tag with an attribute set: in its place, or as the last."""
    written = f"{name}={quoteattr(value)}"
    found = re.search(rf"""(?<=\s){re.escape(name)}\s*=\s*("[^"]*"|'[^']*')""", tag)
    if found:
        return tag[: found.start()] + written + tag[found.end() :]
    end = re.search(r"\s*/?>$", tag)
    assert end, "a start tag ends with >"
    return f"{tag[: end.start()]} {written}{end[0]}"
