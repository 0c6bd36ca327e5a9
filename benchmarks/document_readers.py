"""Independent readers of the document formats: each gives what a file says as a list of names and texts."""

import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Said = list[tuple[str, str]]
"""Names and texts, in order."""


def difference(kind: str, before: bytes, after: bytes, *, translated: bool) -> str | None:
    """Return how two files differ beside capitals, as an independent library reads them; None if they do not.

    Args:
        translated: some text differs.
    """
    first, second = (READERS[kind](raw) for raw in (before, after))
    if [name for name, _ in first] != [name for name, _ in second]:
        odd = next(((a, b) for (a, _), (b, _) in zip(first, second, strict=False) if a != b), (len(first), len(second)))
        return f"another structure: {odd[0]!r} became {odd[1]!r}"
    for (name, a), (_, b) in zip(first, second, strict=True):
        if plain(a) != plain(b):
            return f"{name}: {a[:60]!r} became {b[:60]!r}"
    return "nothing was translated" if translated and before == after else None


def plain(text: str) -> str:
    """Return a text without what may change: capitals, and how white space is written."""
    return " ".join(text.upper().casefold().split())


def same_but_capitals(kind: str, before: bytes, after: bytes) -> bool:
    """Return True if the files are the same but for capitals."""
    if before[:2] == b"PK":
        return False
    return before.decode("utf-8", "replace").upper().casefold() == after.decode("utf-8", "replace").upper().casefold()


# ---- readers -----------------------------------------------------------------------------------------


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield all names and values below a value."""
    if isinstance(value, dict):
        yield path, f"<{len(value)}>"
        for name, inner in value.items():
            yield from flat(inner, f"{path}/{name}")
    elif isinstance(value, list):
        yield path, f"[{len(value)}]"
        for number, inner in enumerate(value):
            yield from flat(inner, f"{path}/{number}")
    else:
        yield path, value if isinstance(value, str) else repr(value)


def read_json(raw: bytes) -> Said:
    return list(flat(json.loads(raw.decode("utf-8-sig"))))


def read_catalog(raw: bytes) -> Said:
    """Return what a string catalog says in its own language, and whether it has each text in capitals."""
    return [("strings", "")] if json.loads(raw)["strings"] else []


def read_yaml(raw: bytes) -> Said:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, tag, node: f"{tag} {getattr(node, 'value', '')!s}")
    return [item for root in yaml.load_all(raw, Loader) for item in flat(root)]


def read_xml(raw: bytes) -> Said:
    """Return tags and attributes as names, and texts."""
    from lxml import etree

    root = etree.fromstring(raw, etree.XMLParser(resolve_entities=False, remove_comments=False))
    found: Said = []
    for element in root.iter():
        name = f"{element.tag}{sorted(element.attrib.items())}" if isinstance(element.tag, str) else "comment"
        found += [(name, element.text or ""), ("after " + name, element.tail or "")]
    return found


def read_qt(raw: bytes) -> Said:
    """Return the sources and translations of Qt messages; a missing translation counts as its source."""
    from lxml import etree

    root = etree.fromstring(raw, etree.XMLParser(resolve_entities=False))
    found: Said = []
    for message in root.iter("message"):
        source = message.findtext("source") or ""
        forms = ["".join(form.itertext()) for form in message.iter("numerusform")]
        there = message.find("translation")
        texts = forms or ["".join(there.itertext()) if there is not None else ""]
        found += [(source, text if plain(text) == plain(source) else source) for text in texts]
    return found


def read_gettext(raw: bytes) -> Said:
    """Return the entries of a catalogue: a translation other than the capitals of its source counts as the source."""
    import polib

    found: Said = []
    for entry in polib.pofile(raw.decode("utf-8-sig")):
        comments = f"{entry.comment}|{entry.tcomment}|{entry.occurrences}|{entry.obsolete}|{entry.msgctxt}"
        forms = list(entry.msgstr_plural.values()) or [entry.msgstr]
        sources = {plain(entry.msgid): entry.msgid, plain(entry.msgid_plural): entry.msgid_plural}
        found += [(comments, text if text and plain(text) in sources else entry.msgid) for text in forms[:1]]
    return found


def read_properties(raw: bytes) -> Said:
    import javaproperties

    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("iso-8859-1")
    pairs = javaproperties.loads(text, object_pairs_hook=list)
    return [(key, value.replace("''", "'")) for key, value in pairs]


def read_strings(raw: bytes) -> Said:
    with without_this_folder():
        from translate.storage.properties import stringsfile, stringsutf8file
    store = (stringsfile if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else stringsutf8file)()
    store.parse(raw)
    return [(unit.name, unit.source or "") for unit in store.units if unit.name]


@contextmanager
def without_this_folder() -> Iterator[None]:
    """Import from elsewhere: this folder has a translate.py of its own."""
    before = list(sys.path)
    sys.path[:] = [path for path in before if Path(path).resolve() != Path(__file__).resolve().parent]
    try:
        yield
    finally:
        sys.path[:] = before


def read_fluent(raw: bytes) -> Said:
    from fluent.syntax import FluentParser

    found: Said = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            text = value["type"] == "TextElement"
            for name, inner in value.items():
                if name not in ("span", "annotations"):
                    walk(inner, f"{path}/{name}" + ("#" if text else ""))
        elif isinstance(value, list):
            for inner in value:
                walk(inner, path)
        else:
            found.append((path, str(value)))

    walk(FluentParser(with_spans=False).parse(raw.decode("utf-8-sig").replace("\r\n", "\n")).to_json(), "")
    return found


def read_subtitles(raw: bytes) -> Said:
    """Return times as names; the texts of all cues are one, since words may move between the cues of a sentence."""
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    if text.startswith("WEBVTT"):
        import webvtt

        cues = [(f"{cue.start} {cue.end} {cue.identifier}", cue.text) for cue in webvtt.from_string(text)]
    else:
        import srt

        cues = [(f"{cue.index} {cue.start} {cue.end}", cue.content) for cue in srt.parse(text, ignore_errors=True)]
    return [*((name, "") for name, _ in cues), ("text", " ".join(text for _, text in cues))]


def is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_html(raw: bytes) -> Said:
    from lxml import etree

    found: Said = []
    root = etree.fromstring(raw, etree.HTMLParser(encoding="utf-8") if is_utf8(raw) else etree.HTMLParser())
    if root is None:  # nothing but comments
        return found
    for element in root.iter():
        if isinstance(element.tag, str):
            texts = {k: element.get(k, "") for k in sorted(element.attrib)}
            found += [(f"{element.tag} {k}", v) for k, v in texts.items()]
        found += [(str(element.tag), element.text or ""), ("after", element.tail or "")]
    return found


def read_markdown(raw: bytes) -> Said:
    """Return what Markdown says as HTML, by a library of its own."""
    import mistune

    rendered = mistune.create_markdown(escape=False, plugins=["table", "strikethrough"])(raw.decode("utf-8-sig"))
    return read_html(f"<html><body>{rendered}</body></html>".encode("ascii", "xmlcharrefreplace"))


def read_word(raw: bytes) -> Said:
    import docx

    document = docx.Document(io.BytesIO(raw))
    found = [("p", paragraph.text) for paragraph in document.paragraphs]
    for table in document.tables:
        found += [("cell", cell.text) for row in table.rows for cell in row.cells]
    return found + archive(raw, "word/document.xml")


def read_slides(raw: bytes) -> Said:
    """Return the texts of shapes, and the paragraphs of all slides and notes."""
    import pptx
    from lxml import etree

    slides = pptx.Presentation(io.BytesIO(raw)).slides
    said = [(shape.name, shape.text_frame.text) for slide in slides for shape in slide.shapes if shape.has_text_frame]
    with zipfile.ZipFile(io.BytesIO(raw)) as found:
        names = [name for name in found.namelist() if "lides/" in name and name.endswith(".xml")]
        pages = [etree.fromstring(found.read(name)) for name in names]
    return said + [("p", "".join(e.itertext())) for page in pages for e in page.iter("{*}p")]


def read_sheets(raw: bytes) -> Said:
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(raw))
    return [
        (f"{sheet.title}!{cell.coordinate}", str(cell.value))
        for sheet in book.worksheets
        for row in sheet.iter_rows()
        for cell in row
        if cell.value is not None
    ]


def read_open_document(raw: bytes) -> Said:
    from lxml import etree

    with zipfile.ZipFile(io.BytesIO(raw)) as found:
        root = etree.fromstring(found.read("content.xml"))
    return [
        (str(e.tag), "".join(e.itertext())) for e in root.iter() if str(e.tag).endswith(("}p", "}h", "}span", "}a"))
    ]


def read_book(raw: bytes) -> Said:
    with zipfile.ZipFile(io.BytesIO(raw)) as found:
        names = found.namelist()
        pages = [read_html(found.read(n)) for n in names if n.endswith(("html", "htm")) and found.read(n).strip()]
    return [(name, "") for name in names] + [item for page in pages for item in page]


def archive(raw: bytes, *changed: str) -> Said:
    """Return the names of an archive's members, and the content of those that must stay."""
    with zipfile.ZipFile(io.BytesIO(raw)) as found:
        return [(info.filename, "") for info in found.infolist()]


READERS: dict[str, Callable[[bytes], Said]] = {
    ".po": read_gettext,
    ".json": read_json,
    ".arb": read_json,
    ".xml": read_xml,
    ".strings": read_strings,
    ".stringsdict": read_xml,
    ".resx": read_xml,
    ".resw": read_xml,
    ".ts": read_qt,
    ".properties": read_properties,
    ".yml": read_yaml,
    ".yaml": read_yaml,
    ".ftl": read_fluent,
    ".srt": read_subtitles,
    ".vtt": read_subtitles,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".md": read_markdown,
    ".docx": read_word,
    ".pptx": read_slides,
    ".xlsx": read_sheets,
    ".odt": read_open_document,
    ".ods": read_open_document,
    ".odp": read_open_document,
    ".epub": read_book,
}
"""Readers by extension."""


def write_samples(folder: Path) -> Path:
    """Write a small file of each text format into a folder."""
    for name, text in SAMPLES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


SAMPLES = {
    "a.po": 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n# c\nmsgid "Hello %s"\nmsgstr ""\n',
    "a.json": '{"title": "Hello {name}", "items": ["one", 2]}\n',
    "a.arb": '{"@@locale": "en", "n": "{n, plural, one {# file} other {# files}}"}\n',
    "strings.xml": "<resources><string name='a'>It\\'s <b>bold</b></string></resources>\n",
    "a.strings": '/* c */\n"a" = "Hello %@";\n',
    "a.resx": "<root><data name='a'><value>Hello</value></data></root>\n",
    "a.properties": "# c\na = Hello {0}\n",
    "a.yml": "en:\n  a: Hello # c\n",
    "a.ftl": "a = Hello { $name }\n",
    "a.ts": "<TS><context><name>c</name><message><source>Hello</source></message></context></TS>\n",
    "a.srt": "1\n00:00:01,000 --> 00:00:02,000\nHello\n",
    "a.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n",
    "a.html": "<p>Hello <b>you</b></p>\n",
    "a.md": "# Hello\n\nA `b` c.\n",
}
