"""Paragraphs of office documents: text in runs of one format each, taken apart and put together again.

A paragraph becomes one text. The format that most of it has is plain text. Stretches of another format, links and the
like stand between ``<g1>`` and ``</g1>``. Pictures, breaks and notes are ``<x1/>``. The parts of a field, which must
stay in their order, are ``<it1/>``. Blanks to be filled in by hand are ``<x1/>`` too. When a translation is written,
neighbouring runs of one format are one run, and the marks of a spelling checker are left out.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from xml.sax.saxutils import escape

from dragoman.text.filled.office_dialects import SHEETS, Dialect
from dragoman.text.filled.run_properties import format_of, show_on_blanks, without_marks
from dragoman.text.formats.markup import Element

_CODE = re.compile(r"(</?g\d+>|<(?:x|it)\d+/>)")


_FIELD = {"fldChar", "instrText"}
"""Parts of a field of Word's, which is written over several runs: they must stay in their order."""


@dataclass
class Atom:
    """Piece of a paragraph: a text in one format, the beginning or end of a container, or something that stays."""

    kind: str
    """``text``, ``open``, ``close`` or ``other``."""
    start: int
    end: int
    text: str = ""
    properties: str = ""
    """Properties of its run as they are written, without the marks of a spelling checker."""
    number: int = 0
    """Number of a container, the same for its beginning and end."""
    run: tuple[int, int] | None = None
    """Span of the run that it is a part of, if the run has other parts."""
    ordered: bool = False
    """True for something that must stay in its order."""

    @property
    def format(self) -> str:
        """Return its format, to be compared with that of others."""
        return format_of(self.properties)

    @property
    def whole(self) -> tuple[int, int]:
        """Return the span of the run that it is in, or its own."""
        return self.run or (self.start, self.end)


Raw = Callable[[int, int], str]
"""Function that returns a stretch of the file, with the paragraphs in it translated."""


@dataclass
class Paragraph:
    """Text of a paragraph, with what it takes to write its translation."""

    line: int
    start: int
    end: int
    text: str
    codes: tuple[str, ...]
    atoms: dict[str, Atom]
    """Pieces by the code that stands for them in the text."""
    formats: dict[str, str]
    """Properties of runs by the code that they begin at."""
    plain: str
    """Properties of the runs without a code."""
    around: tuple[list[Atom], list[Atom]]
    """Pieces before and after the text in the runs where it begins and ends."""
    prefix: str
    """Prefix of the names of elements, with its colon."""
    style: str
    """How text is written: in a ``run``, in a ``t``, or ``bare``."""

    @property
    def words(self) -> str:
        """Return the text without the codes of formats and of what stays."""
        return "".join(piece for piece in _CODE.split(self.text) if piece not in self.codes or not _CODE.match(piece))

    def written(self, text: str, raw: Raw) -> str:
        """Return a translation as the content of the paragraph."""
        parts = [self.piece(atom, raw) for atom in self.around[0]]
        formats = [self.plain]
        for number, piece in enumerate(_CODE.split(text)):
            if number % 2 == 0 or piece not in self.codes:
                parts += [self.text_in(piece, formats[-1])] if piece else []
            elif piece in self.atoms:
                parts.append(self.piece(self.atoms[piece], raw))
            elif piece in self.formats:
                formats.append(self.formats[piece])
            elif len(formats) > 1:
                formats.pop()
        return "".join([*parts, *(self.piece(atom, raw) for atom in self.around[1])])

    def piece(self, atom: Atom, raw: Raw) -> str:
        """Return a piece that stays, in a run of its own if it was in one; a container's beginning opens it."""
        if atom.kind == "text":
            return self.text_in(atom.text, atom.properties)
        content = raw(atom.start, atom.end)
        begin = f"<{self.prefix}r>{atom.properties}" if atom.run and atom.kind != "close" else ""
        end = f"</{self.prefix}r>" if atom.run and atom.kind != "open" else ""
        return begin + content + end

    def text_in(self, text: str, properties: str) -> str:
        """Return a text as a run."""
        if self.style == "bare":
            return escape(text)
        space = ' xml:space="preserve"' if text != text.strip() and self.prefix != "a:" else ""
        content = f"<{self.prefix}t{space}>{escape(text)}</{self.prefix}t>"
        return content if self.style == "t" else f"<{self.prefix}r>{properties}{content}</{self.prefix}r>"


def paragraphs(element: Element, dialect: Dialect, utf8: bytes) -> Iterator[Paragraph]:
    """Yield the paragraphs of an element and of those inside of it, outer ones first, without those that stay."""
    if element.name in dialect.paragraphs and not element.is_one_tag:
        atoms = list(_Atoms(dialect, utf8).of(element))
        if any(atom.kind == "text" and atom.text.strip() for atom in atoms):
            yield _paragraph(element, dialect, utf8, atoms)
    for child in element.children:
        if isinstance(child, Element) and not dialect.excludes(child):
            yield from paragraphs(child, dialect, utf8)


# ---- the pieces of a paragraph -----------------------------------------------------------------------


class _Atoms:
    """Reader of the pieces of a paragraph."""

    def __init__(self, dialect: Dialect, utf8: bytes):
        self.dialect, self.utf8, self.containers = dialect, utf8, 0

    def of(self, element: Element) -> Iterator[Atom]:
        """Yield the pieces inside of a paragraph or container."""
        at = element.inside
        for child in element.children:
            if isinstance(child, str):
                continue
            if self.dialect.run is None and at < child.start:
                yield self.text(at, child.start)
            yield from self.child(child)
            at = child.end
        if self.dialect.run is None and at < element.outside:
            yield self.text(at, element.outside)

    def child(self, child: Element) -> Iterator[Atom]:
        """Yield the pieces of something inside of a paragraph or container."""
        if child.name in self.dialect.dropped:
            return
        if child.name == self.dialect.run:
            yield from self.run(child)
        elif child.name == "t" and self.dialect is SHEETS:
            yield Atom("text", child.start, child.end, _string(child))
        else:
            yield from self.container(child)

    def container(self, element: Element, properties: str = "", run: tuple[int, int] | None = None) -> Iterator[Atom]:
        """Yield a container's beginning, the pieces inside of it and its end, or one piece for anything else."""
        inside = self.dialect.inside(element)
        self.containers += 1
        number, pieces = self.containers, iter(()) if inside is None else self.of(inside)
        if self.dialect.passes_over(element):
            pieces = list(pieces)
            if all(piece.kind == "text" for piece in pieces):
                yield Atom("text", element.start, element.end, "".join(piece.text for piece in pieces))
                return
        if inside is None:
            yield Atom("other", element.start, element.end, "", properties, run=run, ordered=element.name in _FIELD)
        else:
            yield Atom("open", element.start, inside.inside, "", properties, number, run)
            yield from pieces
            yield Atom("close", inside.outside, element.end, "", properties, number, run)

    def run(self, run: Element) -> Iterator[Atom]:
        """Yield the text of a run. One with anything else in it, such as breaks or pictures, is divided there."""
        inner = [child for child in run.children if isinstance(child, Element)]
        inner = [child for child in inner if child.name not in self.dialect.dropped]
        properties = "".join(without_marks(self.raw(child.start, child.end)) for child in inner if child.name == "rPr")
        content = [child for child in inner if child.name != "rPr"]
        texts = [child for child in content if child.name == "t"]
        if not texts and not any(map(self.dialect.inside, content)):
            yield Atom("other", run.start, run.end, ordered=any(child.name in _FIELD for child in content))
        elif len(texts) == len(content):
            yield Atom("text", run.start, run.end, "".join(map(_string, texts)), properties)
        else:
            whole = run.start, run.end
            for child in content:
                if child.name == "t":
                    yield Atom("text", child.start, child.end, _string(child), properties, run=whole)
                else:
                    yield from self.container(child, properties, whole)

    def text(self, start: int, end: int) -> Atom:
        """Return the text between two elements."""
        raw = re.sub(r"[ \t\r\n]+", " ", re.sub(r"<!--.*?-->|<\?.*?\?>", "", self.raw(start, end), flags=re.DOTALL))
        return Atom("text", start, end, re.sub(r"&(?:#(x?)([0-9A-Fa-f]+)|(\w+));", _character, raw))

    def raw(self, start: int, end: int) -> str:
        return self.utf8[start:end].decode()


def _character(reference: re.Match[str]) -> str:
    if reference[3]:
        return {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}.get(reference[3], reference[0])
    return chr(int(reference[2], 16 if reference[1] else 10))


def _string(element: Element) -> str:
    return "".join(child for child in element.children if isinstance(child, str))


# ---- a paragraph from its pieces ---------------------------------------------------------------------


def _paragraph(element: Element, dialect: Dialect, utf8: bytes, atoms: list[Atom]) -> Paragraph:
    kept = _trimmed(atoms)
    first, last = kept[0].whole[0], kept[-1].whole[1]
    at, end = atoms.index(kept[0]), atoms.index(kept[-1])
    around = [a for a in atoms[:at] if a.start >= first], [a for a in atoms[end + 1 :] if a.end <= last]
    text = _Text(kept, dialect)
    name = re.match(r"<([^\s/>]+)", utf8[element.start : element.inside].decode())
    prefix = name[1].rpartition(":")[0] + ":" if name and ":" in name[1] else ""
    style = "bare" if dialect.run is None else "t" if element.find("t") else "run"
    return Paragraph(
        line=element.line,
        start=first,
        end=last,
        text="".join(text.parts),
        codes=tuple(text.codes),
        atoms=text.atoms,
        formats=text.formats,
        plain=text.plain,
        around=around,
        prefix=prefix,
        style=style,
    )


def _trimmed(atoms: Sequence[Atom]) -> list[Atom]:
    """Return the pieces from the first text to the last, without a container around all of them."""
    kept = list(atoms)
    while _is_edge(kept[0]):
        del kept[0]
    while _is_edge(kept[-1]):
        del kept[-1]
    if kept[0].kind == "open" and kept[-1].kind == "close" and kept[0].number == kept[-1].number:
        return _trimmed(kept[1:-1])
    return kept


def _is_edge(atom: Atom) -> bool:
    return atom.kind == "other" or (atom.kind == "text" and not atom.text.strip())


def _with_fixed_blanks(atoms: Sequence[Atom], plain: str) -> Iterator[Atom]:
    """Yield the pieces, those blanks as something that stays whose format people see, such as a line to write on.

    A blank beside words of its format is a part of them. One that only separates words becomes plain text.
    """
    for form, group in groupby(atoms, key=lambda atom: atom.format if atom.kind == "text" else None):
        same = list(group)
        text = "".join(atom.text for atom in same)
        if form in (None, plain) or text.strip():
            yield from same
        elif len(text) > 1 or (text and show_on_blanks(form)):
            for _, part in groupby(same, key=lambda atom: atom.run):
                blanks = list(part)
                yield replace(blanks[0], kind="other", end=blanks[-1].end, text="")
        else:
            yield from (replace(atom, properties=plain) for atom in same)


class _Text:
    """Text of a paragraph, and the codes in it."""

    def __init__(self, atoms: Sequence[Atom], dialect: Dialect):
        sizes: Counter[str] = Counter()
        spellings: dict[str, Counter[str]] = {}
        for atom in atoms:
            if atom.kind == "text":
                size = len(atom.text.strip())
                sizes[atom.format] += size
                spellings.setdefault(atom.format, Counter())[atom.properties] += size
        self.plain_format = sizes.most_common(1)[0][0]
        self.plain = spellings[self.plain_format].most_common(1)[0][0]
        self.dialect = dialect
        self.parts: list[str] = []
        self.codes: list[str] = []
        self.atoms: dict[str, Atom] = {}
        self.formats: dict[str, str] = {}
        self.numbers: dict[int, int] = {}
        """Numbers of codes by those of containers."""
        self.count, self.open, self.open_format = 0, 0, ""
        for atom in _with_fixed_blanks(atoms, self.plain_format):
            self.add(atom)
        self.close()

    def add(self, atom: Atom) -> None:
        is_text = atom.kind == "text"
        is_other_format = is_text and atom.format != self.plain_format
        if self.open and not (is_other_format and atom.format == self.open_format):
            self.close()
        if is_other_format and not self.open:
            self.open, self.open_format = self.next(), atom.format
            self.formats[f"<g{self.open}>"] = atom.properties
            self.code(f"<g{self.open}>")
        if is_text:
            self.parts.append(atom.text)
            if self.dialect.characters:
                self.codes += (found[0] for found in self.dialect.characters.finditer(atom.text))
        elif atom.kind == "close":
            self.code(f"</g{self.numbers[atom.number]}>", atom)
        elif atom.kind == "open":
            self.numbers[atom.number] = self.next()
            self.code(f"<g{self.count}>", atom)
        else:
            self.code(f"<{'it' if atom.ordered else 'x'}{self.next()}/>", atom)

    def next(self) -> int:
        self.count += 1
        return self.count

    def code(self, code: str, atom: Atom | None = None) -> None:
        self.codes.append(code)
        self.parts.append(code)
        if atom:
            self.atoms[code] = atom

    def close(self) -> None:
        """End a stretch of another format."""
        if self.open:
            self.code(f"</g{self.open}>")
            self.open = 0
