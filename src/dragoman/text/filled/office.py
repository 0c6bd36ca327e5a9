"""Office documents and e-books: archives of XML in which the text of each paragraph is translated.

Members of the archive without a translation are written as they were, in the same order.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence

from dragoman.errors import DataError, UserError
from dragoman.text.compressed import extension
from dragoman.text.document import Edit, FillableDocument, Filling, Slot
from dragoman.text.filled.archive import ArchiveReader, with_members
from dragoman.text.filled.encrypted import refuse_compound, refuse_encrypted
from dragoman.text.filled.html_document import HtmlDocument
from dragoman.text.filled.office_dialects import PACKAGE, Dialect, characters
from dragoman.text.filled.office_members import ROOTS, TEXTS, Members, kind_of, members_of, root_of
from dragoman.text.filled.office_paragraphs import Paragraph, paragraphs
from dragoman.text.formats.markup import Element, MarkupSource, units

_LANGUAGE = re.compile(rb"(<(?:\w+:)?language(?:\s[^<>]*)?>)[^<]*(?=<)")
_STRING_VALUE = re.compile(rb"""\soffice:string-value\s*=\s*(?:"[^"]*"|'[^']*')""")


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
        members, contents = _read_members(raw, name)
        self.packages = {member: contents[member] for member, dialect in members.texts.items() if dialect is PACKAGE}
        """Descriptions of an e-book, which name its language."""
        self.parts: dict[str, XmlPart | HtmlDocument] = {}
        self.homes: list[tuple[str, int]] = []
        """Member of each slot, and its number there."""
        fixed = _table_headers({f"{name}/{member}": contents[member] for member in members.tables})
        for member, dialect in members.texts.items():
            place, content = f"{name}/{member}", contents[member]
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
        if members.left:
            self.notes.append(f"{name}: text stays as it is in {', '.join(members.left)}")

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        by_member: dict[str, dict[int, Filling]] = {}
        for number, filling in fillings.items():
            member, inner = self.homes[number]
            by_member.setdefault(member, {})[inner] = filling
        changed = {member: self.parts[member].fill(some) for member, some in by_member.items()}
        if changed and self.target:
            changed |= {
                member: self.with_language(changed.get(member, content)) for member, content in self.packages.items()
            }
        return with_members(self.raw, changed) if changed else self.raw

    def with_language(self, package: bytes) -> bytes:
        """Return the description of an e-book with the language of the translation, unless it names several."""
        if len(_LANGUAGE.findall(package)) != 1 or self.target is None:
            return package
        language = self.target.replace("_", "-").encode()
        return _LANGUAGE.sub(lambda found: found[1] + language, package)


class XmlPart(FillableDocument):
    """Member of an archive: XML with paragraphs."""

    def __init__(self, raw: bytes, name: str, dialect: Dialect, fixed: frozenset[str] = frozenset()):
        """Read a member; texts whose words are in ``fixed`` stay."""
        super().__init__()
        self.markup = MarkupSource(raw, name)
        self.paragraphs: list[Paragraph] = []
        self.values: dict[int, Edit] = {}
        """Edits that remove the value of a slot's cell, which is its text then, by the number of the slot."""
        found = root_of(self.markup.utf8)
        styles = () if dialect.style is None else (dialect.style,)
        for unit in units([self.markup.utf8], name, found, *dialect.paragraphs, *styles):
            if unit.element.name in styles:
                dialect = dialect.with_style(unit.element)
                continue
            if any(map(dialect.excludes, unit.around)):
                continue
            for paragraph in paragraphs(unit.element, dialect, self.markup.utf8):
                if characters(paragraph.words).strip() not in fixed:
                    self.paragraphs.append(paragraph)
                    if value := _value(self.markup.utf8, unit.around):
                        self.values[len(self.slots)] = value
                    key = str(len(self.slots))
                    self.slots.append(Slot(f"{name}:{paragraph.line}", paragraph.text, paragraph.codes, key=key))
        if not self.slots and found not in ROOTS:
            raise DataError(f"{name}:1: not the content of a document: its outermost element is <{found}>")

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        chosen = {number: self.paragraphs[number] for number in fillings}
        texts = {number: filling.text for number, filling in fillings.items()}
        values = {self.values[number] for number in fillings if number in self.values}
        return self.markup.with_edits([*values, *self.edits(0, len(self.markup.utf8) + 1, chosen, texts)])

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


def _value(utf8: bytes, around: Sequence[Element]) -> Edit | None:
    """Return the edit that removes the value of the cell around a text, if it has one: its text is its value then."""
    for cell in reversed(around):
        if cell.name == "table-cell":
            found = _STRING_VALUE.search(utf8, cell.start, cell.inside)
            return Edit(*found.span(), "") if found else None
    return None


def _outermost(found: Mapping[int, Paragraph]) -> dict[int, Paragraph]:
    """Return the paragraphs that are in no other."""
    outer: dict[int, Paragraph] = {}
    last = -1
    for number, paragraph in sorted(found.items(), key=lambda item: (item[1].start, -item[1].end)):
        if paragraph.start >= last:
            outer[number] = paragraph
            last = paragraph.end
    return outer


def _read_members(raw: bytes, name: str) -> tuple[Members, dict[str, bytes]]:
    """Return the members of an archive, and the content of those that are read.

    Raises:
        DataError: no archive, or a member that cannot be read, or too much of it to read.
    """
    refuse_compound(raw, name, extension(name))
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            reader = ArchiveReader(archive, name)
            kind = extension(name) if extension(name) in TEXTS else kind_of(reader)
            members = members_of(reader, kind)
            refuse_encrypted(reader, members.texts)
            if damaged := archive.testzip():  # all are copied, so all must be whole
                raise zipfile.BadZipFile(f"{damaged} in it fails its checksum")
            contents = {member: reader.read(member) for member in (*members.texts, *members.tables)}
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{name}: damaged, or not the archive its name says ({error})") from None
    except (RuntimeError, NotImplementedError) as error:
        raise DataError(f"{name}: cannot be unpacked ({error}): save it without a password") from None
    if not members.texts:
        raise DataError(f"{name}: an archive of another kind: no member of it is listed as text of a {kind} file")
    return members, contents


def _table_headers(tables: Mapping[str, bytes]) -> frozenset[str]:
    """Return the names of a workbook's table columns: their cells must have the same text."""
    return frozenset(
        characters(unit.element.attributes.get("name", "")).strip()
        for place, content in tables.items()
        for unit in units([content], place, "table", "tableColumn")
    )
