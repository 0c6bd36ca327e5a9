"""Lines of text, read strictly: anything that is not clean UTF-8 text is refused with its file and line, never guessed.

Files are UTF-8, plain or compressed (``.gz``, ``.zst``). A line ends at ``\\n`` or ``\\r\\n`` and nowhere else. U+2028,
U+0085, form feeds and the like stay inside it, so two parallel files stay aligned even where other programs would split
at such a character.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from dragoman.errors import DataError
from dragoman.text.compressed import open_bytes


class TwoSided(Protocol):
    """Anything with a text on each side; an example with one text returns it for both."""

    @property
    def source(self) -> str: ...

    @property
    def target(self) -> str: ...


class Pair(NamedTuple):
    """Sentence and its translation."""

    source: str
    target: str

    def fields(self) -> tuple[str, ...]:
        """Return all fields as texts; ``from_fields`` is the inverse."""
        return self

    @classmethod
    def from_fields(cls, fields: Sequence[str]) -> "Pair":
        """Build a pair from what ``fields`` returned."""
        return cls(*fields)


class AnnotatedPair(Pair):
    """Pair with the notes that its file has on it: the context of the entry, and comments of developers."""

    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: str, target: str, notes: Sequence[str]) -> Pair:
        """Return a pair with its notes, empty ones left out; a plain one where there are none."""
        kept = tuple(note for note in notes if note.strip())
        if not kept:
            return Pair(source, target)
        pair = cls(source, target)
        pair.notes = kept
        return pair


class DocumentEnds:
    """Detects document boundaries from the document name of each row."""

    def __init__(self) -> None:
        self.now: Any = None

    def starts_new(self, document: Any) -> bool:
        """Return True if this row belongs to another document than the row before it."""
        previous, self.now = self.now, document
        return previous != document


PrecedingSentences = tuple[str, ...]
"""Sentences that precede one in its document, the nearest last."""


MatchTexts = tuple[str, ...]
"""Texts that are read of a retrieved match: its translation, or its source and its translation."""
MATCH, TRANSLATION = ("⟨match⟩",), ("⟨translation⟩",)
"""Marks after each match, and between its source and its translation, by the names they may have in a vocabulary."""


class Sourced(NamedTuple):
    """Pair with the name of the source (one of several) it comes from."""

    source: str
    target: str
    origin: str
    """Name of that source."""
    tags: str = ""
    """Tags of that source, separated by spaces."""
    context: PrecedingSentences = ()
    """Sentences read before its source text (``text/context.py``), normalised."""
    matches: tuple[MatchTexts, ...] = ()
    """Retrieved matches read before its source text (``text/retrieval.py``), the best one last."""

    @property
    def pair(self) -> Pair:
        """Return the two texts alone."""
        return Pair(self.source, self.target)

    def fields(self) -> tuple[str, ...]:
        """Return all fields as texts, except for matches, which are retrieved for clean pairs; ``from_fields`` is the
        inverse."""
        return (*self[:4], *self.context)

    @classmethod
    def from_fields(cls, fields: Sequence[str]) -> "Sourced":
        """Build a pair from what ``fields`` returned."""
        source, target, origin, tags, *context = fields
        return cls(source, target, origin, tags, tuple(context))


AnyPair = TypeVar("AnyPair", Pair, Sourced)


def on_one_line(text: str) -> str:
    """Return ``text`` as one line and one table cell: a space for each run of white space, and none at its ends."""
    return " ".join(text.split())


def read_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a text file, without their ends. A byte-order mark is dropped; an empty file has no lines.

    Raises:
        DataError: no such file, not UTF-8, a NUL, bare carriage returns as line ends, damaged compressed data; the
            message opens with the file and, where there is one, the line.
    """
    with open_bytes(path) as file:
        check_beginning(file.peek(1), path)
        yield from decode_lines(file, str(path))


def decode_lines(raw_lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Yield the lines of bytes that are already open, such as standard input, as ``read_lines`` does; errors call them
    ``name``."""
    for number, raw in enumerate(raw_lines, 1):
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if raw:  # a file that holds only a byte-order mark has no line
            yield _decode(raw, f"{name}:{number}")


def check_beginning(head: bytes, path: str | Path) -> None:
    """Refuse a file that begins with the mark of another encoding or whose lines end in bare carriage returns.

    Raises:
        DataError: it does; the message names the conversion.
    """
    for mark, name in _FOREIGN_MARKS.items():
        if head.startswith(mark):
            raise DataError(f"{path}: is {name}: convert it, for example with iconv -f {name} -t UTF-8")
    head = head.removesuffix(b"\r")  # perhaps the first half of \r\n
    bare = head.count(b"\r") - head.count(b"\r\n")
    if bare > head.count(b"\n"):
        raise DataError(f"{path}: its lines end in bare carriage returns: convert it, for example with tr '\\r' '\\n'")


_FOREIGN_MARKS = {  # longest first: UTF-32's little-endian mark begins like UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def _decode(raw: bytes, where: str) -> str:
    if b"\0" in raw:
        at = raw.index(b"\0") + 1
        raise DataError(f"{where}: byte {at} of the line is NUL: not a text file, or UTF-16 to be converted to UTF-8")
    try:
        line = raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 at byte {error.start + 1} of the line (0x{raw[error.start]:02x}): "
            "convert the file, for example with iconv -f LATIN1 -t UTF-8"
        ) from None
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


# ---- JSON: its strings can hold characters that a text file cannot --------------------------------


def parse_json(text: str, where: str) -> Any:
    """Parse ``text`` as JSON. A key given twice keeps its last value.

    Raises:
        DataError: not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f" on line {error.lineno}" if "\n" in text else ""
        raise DataError(f"{where}: not JSON{line}: {error.msg} at character {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON that can be read: {error}") from None


def check_string(value: str, where: str) -> str:
    """Return ``value`` if a text file could hold it.

    Raises:
        DataError: a NUL or half of a surrogate pair, which JSON can spell.
    """
    if found := _UNTEXTUAL.search(value):
        raise DataError(f"{where}: holds \\u{ord(found[0]):04x}, which is not text: remove it")
    return value


def check_surrogates(value: str, where: str) -> str:
    """Return ``value`` if a tokenizer can read it.

    Raises:
        DataError: half of a surrogate pair, which no UTF-8 can hold; the message begins with ``where``.
    """
    if found := _SURROGATE.search(value):
        raise DataError(
            f"{where}: character {found.start() + 1} is \\u{ord(found[0]):04x}, half of a surrogate pair: "
            "read the text as UTF-8 (or UTF-16), without the error handler 'surrogateescape'"
        )
    return value


def without_untextual(value: str) -> str:
    """Return ``value`` without what ``check_string`` refuses: for text that is read and never written."""
    return _UNTEXTUAL.sub("", value)


_UNTEXTUAL = re.compile("[\0\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
