"""Documents in which each translation is a span of the file: the base of most formats.

A format's class finds the spans, says how a text is written there, and names each entry. Everything else is here.
"""

import bisect
import codecs
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dragoman.errors import DataError
from dragoman.text.document import DocumentFile, Edit, FillableDocument, Filling, Slot, splice
from dragoman.text.filled.icu_messages import Branch, message_pieces, written_branch
from dragoman.text.filled.plural_categories import PluralCategories
from dragoman.text.lines import check_string

Write = Callable[[str, Sequence[str]], str]
"""Function from a text, and the parts of it that are markup, to how it is written in the file."""


class TextFile(DocumentFile):
    """File of text in a known encoding; positions count its characters."""

    def __init__(self, raw: bytes, name: str, *, encodings: Sequence[str] = ("utf-8",)):
        """Decode a file.

        Args:
            encodings: tried in this order on a file without a byte-order mark.

        Raises:
            DataError: not in any of the encodings, or a NUL in it; the message names the line.
        """
        self.name = name
        self.mark, self.encoding = _byte_order_mark(raw)
        self.text = _decoded(raw[len(self.mark) :], name, [self.encoding] if self.encoding else encodings)
        self.encoding = self.encoding or next(e for e in encodings if _is_in(raw, e))
        self.only_returns = "\r" in self.text and "\n" not in self.text
        """True for a file whose lines all end in a carriage return alone; ``text`` has line feeds instead."""
        if self.only_returns:
            self.text = self.text.replace("\r", "\n")
        self.line_end = "\r\n" if "\r\n" in self.text else "\n"
        self.ends = [found.end() for found in re.finditer("\n", self.text)]

    def line_of(self, position: int) -> int:
        """Return the line of a position, from 1."""
        return bisect.bisect_right(self.ends, position) + 1

    def place(self, position: int) -> str:
        """Return file and line of a position."""
        return f"{self.name}:{self.line_of(position)}"

    def with_edits(self, edits: Iterable[Edit]) -> bytes:
        changed = splice(self.text, list(edits))
        if self.only_returns:
            changed = changed.replace("\n", "\r")
        try:
            return self.mark + changed.encode(self.encoding)
        except UnicodeEncodeError as error:
            lost = error.object[error.start]
            raise DataError(
                f"{self.name}: is in {self.encoding}, which has no {lost!r} (U+{ord(lost):04X}): convert it to UTF-8"
            ) from None


def _byte_order_mark(raw: bytes) -> tuple[bytes, str]:
    marks = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
    return next(((mark, encoding) for mark, encoding in marks if raw.startswith(mark)), (b"", ""))


def _is_in(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeError:
        return False
    return True


def _decoded(raw: bytes, name: str, encodings: Sequence[str]) -> str:
    encoding = next((encoding for encoding in encodings if _is_in(raw, encoding)), None)
    if encoding is None:
        try:
            raw.decode(encodings[0])
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise DataError(f"{name}:{line}: not {encodings[0].upper()}: convert the file") from None
    text = raw.decode(encoding or encodings[0])
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{name}:{line}: holds a NUL, which is not text: remove it")
    return text


def key_of(path: Iterable[str]) -> str:
    """Return the key of a path of names: joined by dots, those within a name escaped, so that no other path has it."""
    return ".".join(re.sub(r"[\\.]", r"\\\g<0>", name) or "\\0" for name in path)


@dataclass(frozen=True)
class SlotSpan:
    """Span of the file that is rewritten when one of its slots is filled."""

    start: int
    end: int
    """End, exclusive; equal to ``start`` for an entry that is new in the file."""
    pieces: tuple[str | int, ...]
    """Slots by number, and the text between them."""
    write: Write
    before: str = ""
    """Text written before the translation, in an entry that is new in the file."""
    after: str = ""
    """Text written after it."""


class SpannedDocument(FillableDocument):
    """Document whose slots are spans of its file."""

    def __init__(self, file: DocumentFile):
        super().__init__()
        self.file = file
        self.spans: list[SlotSpan] = []
        self.home: list[SlotSpan] = []
        """Span of each slot."""
        self.declarations: list[Edit] = []
        """Edits beside the translations, such as the name of the language; made if any slot is filled."""
        self.values: dict[str, Edit] = {}
        """Values that are no text, such as numbers, as they are written, by their keys."""

    def add(
        self,
        span: tuple[int, int],
        text: str,
        *,
        place: str,
        key: str,
        write: Write,
        codes: tuple[str, ...] = (),
        icu: PluralCategories | None = None,
        around: tuple[str, str] = ("", ""),
        **slot: object,
    ) -> None:
        """Add the slot of a span, unless its text is blank.

        Args:
            text: text to translate.
            icu: plural categories of the target language, if the text may be an ICU message: each branch is a slot.
            around: what is written before and after the text.
            slot: further fields of the ``Slot``.
        """
        check_string(text, place)
        if not text.strip():
            return
        found = None if icu is None or codes else message_pieces(text, icu)
        pieces: list[str | int] = []
        first = len(self.slots)
        for piece in [Branch(text, "")] if found is None else found:
            if isinstance(piece, str):
                pieces.append(piece)
                continue
            pieces.append(len(self.slots))
            name = ".".join(filter(None, (key, piece.path)))
            self.slots.append(Slot(place, piece.text, codes or piece.codes, key=name, **slot))  # pyright: ignore[reportArgumentType]
        self.spans.append(SlotSpan(*span, tuple(pieces), write, *around))
        self.home += [self.spans[-1]] * (len(self.slots) - first)

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        spans = {id(span): span for span in (self.home[number] for number in fillings)}
        edits = [Edit(span.start, span.end, self.written(span, fillings)) for span in spans.values()]
        return self.file.with_edits([*edits, *(self.declarations if edits else []), *self.marks(fillings)])

    def marks(self, fillings: Mapping[int, Filling]) -> Iterable[Edit]:
        """Return the edits that mark translations for review, in formats that can."""
        return ()

    def written(self, span: SlotSpan, fillings: Mapping[int, Filling]) -> str:
        """Return what is written at a span."""
        texts, codes = [], []
        for piece in span.pieces:
            if isinstance(piece, str):
                texts.append(piece)
                continue
            filling = fillings.get(piece, Filling(self.slots[piece].text))
            alone = len(span.pieces) == 1
            texts.append(filling.text if alone else written_branch(filling.text, self.slots[piece].text))
            codes += filling.codes or self.slots[piece].codes
        return span.before + span.write("".join(texts), codes) + span.after
