"""Office documents and e-books: archives of XML in which the text of each paragraph is translated.

Members of the archive without a translation are written as they were, in the same order.
"""

import fnmatch
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping

from dragoman.errors import DataError, UserError
from dragoman.text.compressed import extension
from dragoman.text.document import Edit, FillableDocument, Filling, Slot
from dragoman.text.filled.encrypted import refuse_compound, refuse_encrypted
from dragoman.text.filled.html_document import HtmlDocument
from dragoman.text.filled.office_paragraphs import (
    CONTENTS,
    OPEN_DOCUMENT,
    PACKAGE,
    SHEETS,
    SLIDES,
    WORD,
    Dialect,
    Paragraph,
    paragraphs,
)
from dragoman.text.formats.markup import MarkupSource, units

_DIAGRAMS = ("diagrams/data*", "diagrams/drawing*")
"""Text of a diagram, and how it was drawn last."""
_MEMBERS: dict[str, dict[str, Dialect | None]] = {
    ".docx": {
        **{f"word/{name}.xml": WORD for name in ("document", "header*", "footer*", "footnotes", "endnotes")},
        **{f"word/{name}.xml": SLIDES for name in ("charts/chart*", *_DIAGRAMS)},
    },
    ".pptx": {
        f"ppt/{name}.xml": SLIDES for name in ("slides/slide*", "notesSlides/notesSlide*", "charts/chart*", *_DIAGRAMS)
    },
    ".xlsx": {
        **{f"xl/{name}.xml": SHEETS for name in ("sharedStrings", "worksheets/sheet*")},
        **{f"xl/{name}.xml": SLIDES for name in ("drawings/drawing*", "charts/chart*", *_DIAGRAMS)},
    },
    **{kind: {"content.xml": OPEN_DOCUMENT, "styles.xml": OPEN_DOCUMENT} for kind in (".odt", ".ods", ".odp")},
    ".epub": {"*.xhtml": None, "*.html": None, "*.htm": None, "*.ncx": CONTENTS, "*.opf": PACKAGE},
}
"""Members with text, by the extension of the archive; None for members that are HTML."""
_LEFT = ("word/comments*.xml", "word/glossary/*.xml", "xl/*omments*.xml", "ppt/comments/*.xml")
"""Members whose text stays: what people who work on a document write to each other, and what they insert."""
_LABELS = ("ppt/charts/chart*.xml", "word/charts/chart*.xml")
"""Charts of a workbook that is embedded, whose labels stay as they are there."""
_LEFT_TEXT = re.compile(rb"<(?:\w+:)?(?:t|text)(?:\s[^<>]*)?>[^<]*[A-Za-z\x80-\xff]")
_LABEL = re.compile(rb"<(?:\w+:)?v>[^<]*[A-Za-z\x80-\xff]")
_LANGUAGE = re.compile(rb"(<(?:\w+:)?language(?:\s[^<>]*)?>)[^<]*(?=<)")
_ROOTS = frozenset(
    (
        *("document", "hdr", "ftr", "footnotes", "endnotes", "sld", "notes", "dataModel", "sst", "worksheet"),
        *(
            "wsDr",
            "chartSpace",
            "drawing",
            "package",
            "dialogsheet",
            "macrosheet",
            "document-content",
            "document-styles",
            "ncx",
        ),
    )
)
"""Outermost elements of members that are XML."""
MOST = 1 << 30
"""Largest number of bytes that a member may unpack to."""
_SKIPPED = {"tracked-changes", "deletion"}


class OfficeDocument(FillableDocument):
    """Slots of an archive: one per paragraph, cell or heading."""

    numbered = True

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read an archive.

        Raises:
            DataError: no archive of this kind, damaged, or encrypted; the message names the member.
        """
        super().__init__()
        self.name, self.raw, self.target = name, raw, target
        self.kind = extension(name) if extension(name) in _MEMBERS else _kind_of(raw)
        self.members = dict(_read_members(raw, name, _MEMBERS.get(self.kind, {})))
        self.parts: dict[str, XmlPart | HtmlDocument] = {}
        self.homes: list[tuple[str, int]] = []
        """Member of each slot, and its number there."""
        fixed = _table_headers(self.members) if self.kind == ".xlsx" else frozenset[str]()
        for member, content in self.members.items():
            dialect = next(
                (d for pattern, d in _MEMBERS[self.kind].items() if fnmatch.fnmatchcase(member, pattern)), SHEETS
            )
            place = f"{name}/{member}"
            if member.startswith("xl/tables/"):
                continue
            part = (
                HtmlDocument(content, place, source, target)
                if dialect is None
                else XmlPart(content, place, dialect, fixed)
            )
            self.parts[member] = part
            for number, slot in enumerate(part.slots):
                key = f"{member}:{slot.key}"
                self.slots.append(Slot(slot.place, slot.text, slot.codes, key=key))
                self.homes.append((member, number))
        if left := _left(raw):
            self.notes.append(f"{name}: text stays as it is in {', '.join(left)}")

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        by_member: dict[str, dict[int, Filling]] = {}
        for number, filling in fillings.items():
            member, inner = self.homes[number]
            by_member.setdefault(member, {})[inner] = filling
        changed = {member: self.parts[member].fill(some) for member, some in by_member.items()}
        if changed and self.target:
            changed |= {
                member: self.with_language(changed.get(member, content))
                for member, content in self.members.items()
                if member.endswith(".opf")
            }
        return _with_members(self.raw, changed) if changed else self.raw

    def with_language(self, package: bytes) -> bytes:
        """Return the description of an e-book with the language of the translation, unless it names several."""
        if len(_LANGUAGE.findall(package)) != 1 or self.target is None:
            return package
        language = self.target.replace("_", "-").encode()
        return _LANGUAGE.sub(lambda found: found[1] + language, package)


class XmlPart(FillableDocument):
    """Member of an archive: XML with paragraphs."""

    def __init__(self, raw: bytes, name: str, dialect: Dialect, fixed: frozenset[str] = frozenset()):
        """Read a member; texts in ``fixed`` stay."""
        super().__init__()
        self.markup = MarkupSource(raw, name)
        self.paragraphs: list[Paragraph] = []
        root = re.search(
            rb"<([A-Za-z][^\s/>]*)", re.sub(rb"<!--.*?-->", b"", self.markup.utf8[:65536], flags=re.DOTALL)
        )
        found = root[1].decode().rpartition(":")[2] if root else ""
        for unit in units([self.markup.utf8], name, found, *dialect.paragraphs):
            cell = next((e.attributes for e in reversed(unit.around) if e.name == "table-cell"), {})
            if cell.get("office:value-type", "string") != "string" or _SKIPPED & {e.name for e in unit.around}:
                continue
            for paragraph in paragraphs(unit.element, dialect, self.markup.utf8):
                if paragraph.text not in fixed:
                    self.paragraphs.append(paragraph)
                    key = str(len(self.slots))
                    self.slots.append(Slot(f"{name}:{paragraph.line}", paragraph.text, paragraph.codes, key=key))
        if not self.slots and found not in _ROOTS:
            raise DataError(f"{name}:1: not the content of a document: its outermost element is <{found}>")

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        chosen = {number: self.paragraphs[number] for number in fillings}
        texts = {number: filling.text for number, filling in fillings.items()}
        return self.markup.with_edits(self.edits(0, len(self.markup.utf8) + 1, chosen, texts))

    def edits(self, start: int, end: int, chosen: Mapping[int, Paragraph], texts: Mapping[int, str]) -> list[Edit]:
        """Return the edits of the paragraphs in a stretch; those inside of others are part of them."""
        inside = {n: p for n, p in chosen.items() if start <= p.start and p.end <= end}
        outer = _outermost(inside)

        def raw(start: int, end: int, own: int) -> str:
            others = {n: p for n, p in inside.items() if n != own}
            piece = self.markup.utf8[start:end]
            for edit in sorted(self.edits(start, end, others, texts), reverse=True):
                piece = piece[: edit.start - start] + edit.new.encode() + piece[edit.end - start :]
            return piece.decode()

        return [
            Edit(p.start, p.end, p.written(texts[n], lambda start, end, n=n: raw(start, end, n)))
            for n, p in outer.items()
        ]


def _outermost(found: Mapping[int, Paragraph]) -> dict[int, Paragraph]:
    """Return the paragraphs that are in no other."""
    outer: dict[int, Paragraph] = {}
    last = -1
    for number, paragraph in sorted(found.items(), key=lambda item: (item[1].start, -item[1].end)):
        if paragraph.start >= last:
            outer[number] = paragraph
            last = paragraph.end
    return outer


def _kind_of(raw: bytes) -> str:
    """Return the extension of an archive whose name does not tell, by its members."""
    try:
        names = zipfile.ZipFile(io.BytesIO(raw)).namelist()
    except zipfile.BadZipFile:
        return ".docx"
    marks = {"word/document.xml": ".docx", "ppt/presentation.xml": ".pptx", "xl/workbook.xml": ".xlsx"}
    marks |= {"META-INF/container.xml": ".epub", "content.xml": ".odt"}
    return next((kind for mark, kind in marks.items() if mark in names), ".docx")


def _read_members(raw: bytes, name: str, patterns: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
    """Yield the members of an archive that hold text.

    Raises:
        DataError: no archive, or a member that cannot be read.
    """
    found = False
    refuse_compound(raw, name, extension(name))
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            refuse_encrypted(archive, name, patterns)
            if damaged := archive.testzip():  # all are copied, so all must be whole
                raise zipfile.BadZipFile(f"{damaged} in it fails its checksum")
            for info in archive.infolist():
                wanted = any(fnmatch.fnmatchcase(info.filename, pattern) for pattern in patterns)
                table = "xl/sharedStrings.xml" in patterns and info.filename.startswith("xl/tables/")
                found = found or wanted
                if not (wanted or table):
                    continue
                if info.file_size > MOST:
                    raise DataError(f"{name}/{info.filename}: unpacks to {info.file_size:,} bytes, which is too much")
                yield info.filename, archive.read(info)
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{name}: damaged, or not the archive its name says ({error})") from None
    except (RuntimeError, NotImplementedError) as error:
        raise DataError(f"{name}: cannot be unpacked ({error}): save it without a password") from None
    if not found:
        raise DataError(f"{name}: an archive of another kind: none of {', '.join(patterns)} is in it")


def _left(raw: bytes) -> list[str]:
    """Return the members of an archive whose text stays."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return [
            name
            for name in archive.namelist()
            for patterns, text in ((_LEFT, _LEFT_TEXT), (_LABELS, _LABEL))
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and text.search(archive.read(name))
        ]


def _with_members(raw: bytes, changed: Mapping[str, bytes]) -> bytes:
    """Return an archive with some members replaced; all else about it stays."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(out, "w") as new:
        new.comment = archive.comment
        for info in archive.infolist():
            content = changed.get(info.filename)
            new.writestr(info, archive.read(info) if content is None else content, compress_type=info.compress_type)
    return out.getvalue()


def _table_headers(members: Mapping[str, bytes]) -> frozenset[str]:
    """Return the names of a workbook's table columns: their cells must have the same text."""
    found: set[str] = set()
    for member, content in members.items():
        if member.startswith("xl/tables/"):
            for unit in units([content], member, "table", "tableColumn"):
                found.add(unit.element.attributes.get("name", ""))
    return frozenset(found)
