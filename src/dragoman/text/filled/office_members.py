"""Members of office documents and e-books: which hold text, as the archive itself says.

Office documents of Microsoft's list the content type of each member, e-books its media type. The names of members may
be any; only OpenDocument fixes them.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple
from urllib.parse import unquote

from dragoman.text.filled.archive import ArchiveReader
from dragoman.text.filled.office_dialects import CONTENTS, OPEN_DOCUMENT, PACKAGE, SHEETS, SLIDES, WORD, Dialect
from dragoman.text.formats.markup import as_utf8, units

_CHART = ("*.chart+xml", "*.chartex+xml")
_DRAWINGS: dict[str, Dialect | None] = dict.fromkeys(
    (*_CHART, "*.chartshapes+xml", "*.diagramData+xml", "*.diagramDrawing+xml"), SLIDES
)
"""Charts, what is drawn on them, the text of diagrams, and how these were drawn last."""
_MAIN = {
    ".docx": ("*.wordprocessingml.*.main+xml", "*.ms-word.*.main+xml"),
    ".pptx": ("*.presentationml.*.main+xml", "*.ms-powerpoint.*.main+xml"),
    ".xlsx": ("*.spreadsheetml.*.main+xml", "*.ms-excel.*.main+xml"),
}
"""Types of the main member of Microsoft's formats, which tell them apart."""
_PACKAGE = "application/oebps-package+xml"
"""Type of the description of an e-book."""
TEXTS: dict[str, dict[str, Dialect | None]] = {
    ".docx": {
        **dict.fromkeys(_MAIN[".docx"], WORD),
        **{f"*.wordprocessingml.{name}+xml": WORD for name in ("header", "footer", "footnotes", "endnotes")},
        **_DRAWINGS,
    },
    ".pptx": {**{f"*.presentationml.{name}+xml": SLIDES for name in ("slide", "notesSlide")}, **_DRAWINGS},
    ".xlsx": {
        **{f"*.spreadsheetml.{name}+xml": SHEETS for name in ("sharedStrings", "worksheet")},
        "*-officedocument.drawing+xml": SLIDES,
        **_DRAWINGS,
    },
    **{kind: dict.fromkeys(("content.xml", "styles.xml"), OPEN_DOCUMENT) for kind in (".odt", ".ods", ".odp")},
    ".epub": {
        **dict.fromkeys(("application/xhtml+xml", "text/html", "text/x-oeb1-document"), None),
        "application/x-dtbncx+xml": CONTENTS,
        _PACKAGE: PACKAGE,
    },
}
"""Types of the members with text, by the extension of the archive; None for members that are HTML."""
ROOTS = frozenset(
    (
        *("document", "hdr", "ftr", "footnotes", "endnotes", "sld", "notes", "sst", "worksheet"),
        *("wsDr", "chartSpace", "userShapes", "dataModel", "drawing"),
        *("document-content", "document-styles", "package", "ncx"),
    )
)
"""Outermost elements of members with text that are XML."""
_TABLES = ("*.spreadsheetml.table+xml",)
_GLOSSARY = ("*.document.glossary+xml",)
"""Texts that people insert, in a folder of their own, with headers and notes of theirs."""
_COMMENTS = ("*.comments+xml", "*.threadedcomments+xml")
_BEGINNING = 1 << 16
"""Bytes of a member in which its outermost element begins."""
_LETTER = rb"[A-Za-z\x80-\xff]"
_LEFT_TEXT = re.compile(rb"<(?:\w+:)?(?:t|text)(?:\s[^<>]*)?>[^<]*" + _LETTER)
_LABEL = re.compile(rb"<(?:\w+:)?v>[^<]*" + _LETTER)
_ANNOTATION, _ANNOTATION_END = re.compile(rb"<(?:\w+:)?annotation(?=[\s>])"), re.compile(rb"</(?:\w+:)?annotation\s*>")
_PARAGRAPH = re.compile(rb"(?=<(?:\w+:)?p[\s>])")
_TAG = re.compile(rb"""<(?:[^<>"']|"[^"<]*"|'[^'<]*')*>""")
_EXTENSIONS = {
    **dict.fromkeys((".xhtml", ".html", ".htm"), "application/xhtml+xml"),
    ".ncx": "application/x-dtbncx+xml",
    ".opf": _PACKAGE,
}
"""Types of an e-book's members that its package does not list."""
_ROOT_FILE = re.compile(
    rb"""<(?:\w+:)?rootfile\b(?=[^<>]*["']application/oebps-package\+xml["'])[^<>]*\bfull-path\s*=\s*["']([^"']*)["']"""
)
"""Package that an e-book names; other renditions of it, such as a PDF, are named in the same way."""


class Members(NamedTuple):
    """Members of an archive by what happens to their texts."""

    texts: dict[str, Dialect | None]
    """Members with text, in the order of the archive, and how they are read; None for HTML."""
    tables: list[str]
    """Descriptions of tables in a workbook."""
    left: list[str]
    """Members, or parts of them, with text that stays."""


def kind_of(archive: ArchiveReader) -> str:
    """Return the extension of an archive whose name does not tell, by its members.

    Raises:
        DataError: its list of members cannot be read.
    """
    marks = {"META-INF/container.xml": ".epub", "content.xml": ".odt"}
    kinds = [kind for mark, kind in marks.items() if mark in archive.members]
    types = _content_types(archive).values()
    kinds += [kind for kind, patterns in _MAIN.items() if any(_is_any(type_, patterns) for type_ in types)]
    return next(iter(kinds), ".docx")


def members_of(archive: ArchiveReader, kind: str) -> Members:
    """Return the members of an archive with this extension.

    Raises:
        DataError: its list of members cannot be read.
    """
    types = _types(archive, kind)
    glossaries = _glossaries(types)
    texts: dict[str, Dialect | None] = {}
    left: list[str] = []
    for member, type_ in types.items():
        if member.startswith(glossaries):
            left += [member] if _LEFT_TEXT.search(archive.read(member)) else []
            continue
        left += _left(archive, member, type_, kind)
        pattern = next((pattern for pattern in TEXTS[kind] if _is_any(type_, [pattern])), None)
        if pattern is not None:
            texts[member] = TEXTS[kind][pattern]
    return Members(texts, [member for member, type_ in types.items() if _is_any(type_, _TABLES)], left)


def root_of(utf8: bytes) -> str:
    """Return the name of the outermost element of XML, without its prefix; empty if its beginning shows none."""
    root = re.search(rb"<([A-Za-z][^\s/>]*)", re.sub(rb"<!--.*?-->", b"", utf8[:_BEGINNING], flags=re.DOTALL))
    return root[1].decode().rpartition(":")[2] if root else ""


def _glossaries(types: Mapping[str, str]) -> tuple[str, ...]:
    """Return the beginnings of the names of members that belong to texts that people insert."""
    found = [member for member, type_ in types.items() if _is_any(type_, _GLOSSARY)]
    main = [member for member, type_ in types.items() if _is_any(type_, _MAIN[".docx"])]
    folders = {member: posixpath.dirname(member) + "/" for member in found}
    return tuple(
        member if any(other.startswith(folder) for other in main) else folder for member, folder in folders.items()
    )


def _is_any(type_: str, patterns: Iterable[str]) -> bool:
    """Return True if a type fits a pattern; capitals do not matter in types."""
    return any(fnmatchcase(type_.lower(), pattern.lower()) for pattern in patterns)


def _left(archive: ArchiveReader, name: str, type_: str, kind: str) -> list[str]:
    """Return what a member has of text that stays: comments, and the labels of charts that an embedded workbook has."""
    if TEXTS[kind].get(type_) is OPEN_DOCUMENT:
        return [f"comments in {name}"] if _has_comment(archive.read(name)) else []
    if _is_any(type_, _COMMENTS):
        return [name] if _LEFT_TEXT.search(archive.read(name)) else []
    has_workbook = kind in (".docx", ".pptx") and _is_any(type_, _CHART)
    return [name] if has_workbook and _LABEL.search(archive.read(name)) else []


def _has_comment(raw: bytes) -> bool:
    """Return True if a member of an OpenDocument has a comment with words in it; its author's name is none of them."""
    for piece in _ANNOTATION_END.split(raw)[:-1]:  # no pattern over a whole comment: its time would be quadratic
        _, *begun = _ANNOTATION.split(piece)
        _, *paragraphs = _PARAGRAPH.split(begun[-1]) if begun else [b""]
        if re.search(_LETTER, _TAG.sub(b"", b"".join(paragraphs))):
            return True
    return False


# ---- types of members ------------------------------------------------------------------------------


def _types(archive: ArchiveReader, kind: str) -> Mapping[str, str]:
    """Return the type of each member that has one, in the order of the archive."""
    if kind == ".epub":
        return _media_types(archive)
    if kind in _MAIN:
        return _content_types(archive)
    return {member: member for member in archive.members}  # OpenDocument tells its members apart by their names alone


def _content_types(archive: ArchiveReader) -> dict[str, str]:
    """Return the content types that a package lists, by the names of its members."""
    listing = "[Content_Types].xml"
    if listing not in archive.members:
        return {}
    types = {"Default": {}, "Override": {}}
    place = f"{archive.name}/{listing}"
    for unit in units(as_utf8([archive.read(listing)], place), place, "Types", *types):
        entry = unit.element.attributes
        names = entry.get("Extension", "") or entry.get("PartName", "").lstrip("/")
        types[unit.element.name][names.lower()] = entry.get("ContentType", "")
    found = {
        member: types["Override"].get(member.lower()) or _default_type(archive, member, types["Default"])
        for member in archive.members
        if member != listing
    }
    return {member: type_ for member, type_ in found.items() if type_}


def _default_type(archive: ArchiveReader, member: str, defaults: Mapping[str, str]) -> str:
    """Return the type that a member has by its extension, or an empty string.

    A type of text goes for all members of its extension that are not listed, and some of them are other XML, such as
    the properties of the document: these have no type.
    """
    type_ = defaults.get(_extension(member)[1:], "")
    if not any(_is_any(type_, TEXTS[kind]) for kind in _MAIN):
        return type_
    beginning = next(as_utf8([archive.read(member)[:_BEGINNING]], f"{archive.name}/{member}"))
    return type_ if root_of(beginning) in ROOTS else ""


def _media_types(archive: ArchiveReader) -> dict[str, str]:
    """Return the media types of an e-book's members: those that its package lists, else those that their names show."""
    names = archive.members
    container = archive.read("META-INF/container.xml") if "META-INF/container.xml" in names else b""
    types = {member: _EXTENSIONS[_extension(member)] for member in names if _extension(member) in _EXTENSIONS}
    types |= {root.decode("utf-8", "replace"): _PACKAGE for root in _ROOT_FILE.findall(container)}
    for package in [member for member in names if types.get(member) == _PACKAGE]:
        place, folder = f"{archive.name}/{package}", posixpath.dirname(package)
        for unit in units(as_utf8([archive.read(package)], place), place, "package", "item"):
            item = unit.element.attributes
            if _is_any(item.get("media-type", ""), TEXTS[".epub"]):
                for path in (item.get("href", ""), unquote(item.get("href", ""))):
                    types[posixpath.normpath(posixpath.join(folder, path))] = item["media-type"]
    return {member: types[member] for member in names if member in types}


def _extension(name: str) -> str:
    return posixpath.splitext(name)[1].lower()
