"""Lines of text, read strictly: what a line is, and what is refused with its place instead of being guessed at.

Files are UTF-8, plain or compressed (``.gz``, ``.zst``). A line ends at ``\\n`` or ``\\r\\n`` and nowhere else: U+2028,
U+0085, form feeds and the like stay inside it, so two files never fall out of step over a character that only some
programs split at.
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
    """A pair, or what has one text to be told apart by, on both sides."""

    @property
    def source(self) -> str: ...

    @property
    def target(self) -> str: ...


class Pair(NamedTuple):
    """One sentence and its translation."""

    source: str
    target: str

    def fields(self) -> tuple[str, ...]:
        """All of it as texts, from which ``of`` makes it again."""
        return self

    @classmethod
    def of(cls, fields: Sequence[str]) -> "Pair":
        return cls(*fields)


class DocumentEnds:
    """Tells where a document ends by what the rows say of theirs."""

    def __init__(self) -> None:
        self.now: Any = None

    def before(self, document: Any) -> bool:
        """Whether the row that says this is of another document than the one before it."""
        before, self.now = self.now, document
        return before != document


Before = tuple[str, ...]
"""Sentences that stand before one in its document, the nearest last."""


class Sourced(NamedTuple):
    """A pair that knows which of several sources it is from."""

    source: str
    target: str
    origin: str
    """The name of that source."""
    tags: str = ""
    """Those of the source, with spaces between."""
    context: Before = ()
    """What is read before its source text (``text/context.py``), normalised."""

    @property
    def pair(self) -> Pair:
        return Pair(self.source, self.target)

    def fields(self) -> tuple[str, ...]:
        """All of it as texts, from which ``of`` makes it again."""
        return (*self[:4], *self.context)

    @classmethod
    def of(cls, fields: Sequence[str]) -> "Sourced":
        source, target, origin, tags, *context = fields
        return cls(source, target, origin, tags, tuple(context))


AnyPair = TypeVar("AnyPair", Pair, Sourced)


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a text file, without their ends. A byte-order mark is dropped; an empty file has no lines.

    Raises:
        DataError: no such file, not UTF-8, a NUL, bare carriage returns as line ends, damaged compressed data; the
            message opens with the file and, where there is one, the line.
    """
    with open_bytes(path) as file:
        check_beginning(file.peek(1), path)
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw:  # a file of nothing but a mark has no line
                yield _decode(raw, f"{path}:{number}")


def decode_lines(raw_lines: Iterable[bytes], name: str) -> Iterator[str]:
    """As ``read_lines``, of bytes that are open already, such as standard input; ``name`` is what errors call them."""
    for number, raw in enumerate(raw_lines, 1):
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if raw:  # a file of nothing but a mark has no line
            yield _decode(raw, f"{name}:{number}")


def check_beginning(head: bytes, path: str | Path) -> None:
    for mark, name in _FOREIGN_MARKS.items():
        if head.startswith(mark):
            raise DataError(f"{path}: is {name}: convert it, for example with iconv -f {name} -t UTF-8")
    head = head.removesuffix(b"\r")  # half of a line end, perhaps
    bare = head.count(b"\r") - head.count(b"\r\n")
    if bare > head.count(b"\n"):
        raise DataError(f"{path}: its lines end in bare carriage returns: convert it, for example with tr '\\r' '\\n'")


_FOREIGN_MARKS = {  # the longer first: UTF-32's little-endian mark begins like UTF-16's
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


# ---- JSON, whose strings can hold what a text file cannot ------------------------------------------


def parse_json(text: str, where: str) -> Any:
    """The value that ``text`` spells. A key given twice keeps its last value.

    Raises:
        DataError: it spells none.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f" on line {error.lineno}" if "\n" in text else ""
        raise DataError(f"{where}: not JSON{line}: {error.msg} at character {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON we can read: {error}") from None


def check_string(value: str, where: str) -> str:
    """``value`` itself, if a text file could hold it.

    Raises:
        DataError: a NUL or half of a surrogate pair, which JSON can spell.
    """
    if found := _UNTEXTUAL.search(value):
        raise DataError(f"{where}: holds \\u{ord(found[0]):04x}, which is not text: remove it")
    return value


_UNTEXTUAL = re.compile("[\0\ud800-\udfff]")
