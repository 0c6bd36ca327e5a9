"""Independent readers of the document formats: each gives what a file says as a list of names and texts."""

import csv
import io
import json
import plistlib
import re
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


# ---- languages ---------------------------------------------------------------------------------------

_LANGUAGE = r"([a-z]{2,3}(?:[-_][A-Za-z]{2,4})?)"
_DECLARED = (
    r'"@@locale"\s*:\s*"LANGUAGE"',
    r'\btarget-?[lL]ang(?:uage)?="LANGUAGE"',
    r'\btrgLang="LANGUAGE"',
    r"<dc:language[^>]*>LANGUAGE</",
    r'"Language: LANGUAGE\\n"',
    r'<TS\b[^>]*\blanguage="LANGUAGE"',
    r'<html\b[^>]*\blang="LANGUAGE"',
)
"""Patterns of what files say of their language."""
_NAMED = (r"/values-([a-z]{2,3}(?:-r[A-Z]{2})?)/", r"/LANGUAGE\.lproj/", r"[._/-]LANGUAGE\.\w+$")
"""Patterns of paths that name a language."""


def languages_of(name: str, raw: bytes) -> tuple[str, str]:
    """Return the languages (or columns) that a document is opened with, so that the language of the file stays."""
    if Path(name).suffix.lower() in (".csv", ".tsv"):
        return source_column(name, raw), ADDED
    if Path(name).suffix.lower() == ".xcstrings":
        declared = re.search(rb'"sourceLanguage"\s*:\s*"([^"]*)"', raw)
        source = declared[1].decode() if declared else "en"
        return source, catalog_target(source)
    said = [re.search(p.replace("LANGUAGE", _LANGUAGE), head) for head in [_head(raw)] for p in _DECLARED]
    path = "/" + Path(name).as_posix()
    found = next(filter(None, [*said, *(re.search(p.replace("LANGUAGE", _LANGUAGE), path) for p in _NAMED)]), None)
    language = found[1].replace("-r", "-").replace("_", "-") if found else "en"
    return "en", language


def _head(raw: bytes) -> str:
    """Return the beginning of a file, or of the file that describes an e-book."""
    if raw[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(raw)) as found:
            raw = b"".join(found.read(name) for name in found.namelist() if name.endswith(".opf"))
    return raw[:20_000].decode("utf-8", "replace")


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


def read_bundle(raw: bytes) -> Said:
    """Return what a resource bundle says; plural forms that repeat the last one count as not there."""
    return [(name, _REPEATED.sub("", text)) for name, text in read_json(raw)]


_REPEATED = re.compile(r"\s*\b(?:zero|one|two|few|many)\{((?:[^{}]|\{[^{}]*\})*)\}(?=.*\bother\{\1\})", re.DOTALL)


def read_stringsdict(raw: bytes) -> Said:
    """Return what a property list says; plural forms that repeat the last one count as not there."""

    def forms(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kept = {k: v for k, v in value.items() if k not in _FORMS or plain(v) != plain(value.get("other", ""))}
        return {name: forms(inner) for name, inner in kept.items()}

    return list(flat(forms(plistlib.loads(raw))))


_FORMS = ("zero", "one", "two", "few", "many")


def read_catalog(raw: bytes) -> Said:
    """Return all that a string catalog says in other languages than the added one, and the strings of that.

    A string that is not yet translated counts as the string of the source in its place, or as the name of the entry.
    """
    catalog = json.loads(raw)
    source, added = catalog["sourceLanguage"], catalog_target(catalog["sourceLanguage"])
    rest = {n: v for n, v in catalog.items() if n != "strings"}
    found = list(flat(rest))
    for name, entry in catalog["strings"].items():
        languages = entry.get("localizations", {})
        others = {language: one for language, one in languages.items() if language != added}
        found += flat({n: v for n, v in entry.items() if n != "localizations"} | others, name)
        if entry.get("shouldTranslate") is False or entry.get("extractionState") == "stale":
            continue
        strings = _strings_of(languages.get(source, {"stringUnit": {"value": name}}))
        there = _strings_of(languages.get(added, {}))
        found += [(f"{name}/{path}/{added}", there.get(path, "") or text) for path, text in strings.items()]
    return found


def catalog_target(source: str) -> str:
    """Return the language that is added to a catalog."""
    return "fr" if source == "de" else "de"


def _strings_of(localization: Any) -> dict[str, str]:
    """Return the strings of a localization by their place."""
    return {path: text for path, text in flat(localization) if re.search(r"/(?:value|values/\d+)$", path)}


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


def read_android(raw: bytes) -> Said:
    """Return tags and attributes as names, and texts with Android's escapes read."""
    return [(name, _android_text(text)) for name, text in read_xml(raw)]


def _android_text(text: str) -> str:
    plain_characters = {"n": "\n", "t": "\t"}
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
    return re.sub(r'\\(.)|"', lambda m: plain_characters.get(m[1], m[1]) if m[1] else "", text, flags=re.DOTALL)


def read_xliff(raw: bytes) -> Said:
    """Return the sources of units; a translation other than the capitals of its source counts as the source."""
    from lxml import etree

    root = etree.fromstring(raw, etree.XMLParser(resolve_entities=False))
    found: Said = []
    for unit in root.iter("{*}trans-unit", "{*}segment"):
        source, target = ("".join(e.itertext()) if e is not None else "" for e in map(unit.find, _SIDES))
        found.append((f"{unit.get('id')}|{source}", target if plain(target) == plain(source) else source))
    return found


_SIDES = ("{*}source", "{*}target")


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
        found += [(comments, text if text.strip() and plain(text) in sources else entry.msgid) for text in forms[:1]]
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


ADDED = "dragoman_translation"
"""Column that a table gets."""


def table_rows(raw: bytes, kind: str) -> list[list[str]]:
    """Return the rows of a table that has one character of its dialect, as Python's own module reads it."""
    text = raw.decode("utf-8-sig")
    if kind == ".tsv":
        return list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    first = re.sub(r'"[^"]*"', "", text.splitlines()[0])
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count)))


def source_column(name: str, raw: bytes) -> str:
    """Return the name of the column with most letters; the first column of a table that cannot be read."""
    try:
        return _most_letters(table_rows(raw, Path(name).suffix.lower()))
    except (ValueError, csv.Error, IndexError):
        return "en"


def _most_letters(rows: list[list[str]]) -> str:
    header = rows[0]
    letters = [sum(sum(map(str.isalpha, row[i])) for row in rows[1:] if i < len(row)) for i in range(len(header))]
    named = range(len(header) - 1 if header[-1] == ADDED else len(header))
    return header[max(named, key=letters.__getitem__)]


def read_table(kind: str) -> Callable[[bytes], Said]:
    """Return a reader of tables: the added column counts as that of the sources where it holds their capitals."""

    def read(raw: bytes) -> Said:
        rows = [row for row in table_rows(raw, kind) if row]
        at, added = rows[0].index(_most_letters(rows)), rows[0][-1] == ADDED
        found: Said = []
        for number, row in enumerate(rows):
            cells = row[:-1] if added else row
            last = row[-1] if added and number else cells[at]
            found += [*((f"{number}:{i}", cell) for i, cell in enumerate(cells)), (f"{number}:added", last)]
        return found

    return read


def is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


_LANGUAGE_NAMES = ("lang", "xml:lang")
"""Attributes that name the language of the translation afterwards."""


def read_html(raw: bytes) -> Said:
    from lxml import etree

    found: Said = []
    root = etree.fromstring(raw, etree.HTMLParser(encoding="utf-8") if is_utf8(raw) else etree.HTMLParser())
    if root is None:  # nothing but comments
        return found
    for element in root.iter():
        if isinstance(element.tag, str):
            texts = {k: "" if k in _LANGUAGE_NAMES else element.get(k, "") for k in sorted(element.attrib)}
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
    ".arb": read_bundle,
    ".xcstrings": read_catalog,
    ".pot": read_gettext,
    ".xlf": read_xliff,
    ".xliff": read_xliff,
    ".csv": read_table(".csv"),
    ".tsv": read_table(".tsv"),
    ".xml": read_android,
    ".strings": read_strings,
    ".stringsdict": read_stringsdict,
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
    "a.csv": "id,text,kind\n1,Hello {name},label\n2,Good,label\n",
    "a.xlf": '<xliff version="1.2"><file original="a" source-language="en" target-language="de"><body>'
    "<trans-unit id='a'><source>Hello</source></trans-unit></body></file></xliff>\n",
    "a.po": 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n# c\nmsgid "Hello %s"\nmsgstr ""\n',
    "a.json": '{"title": "Hello {name}", "items": ["one", 2]}\n',
    "a.arb": '{"@@locale": "en", "n": "{n, plural, one {# file} other {# files}}"}\n',
    "a.xcstrings": '{"sourceLanguage": "en", "strings": {"%lld files": {"comment": "c", "localizations": {"en": {'
    '"variations": {"plural": {"one": {"stringUnit": {"state": "translated", "value": "%lld file"}}, "other": {'
    '"stringUnit": {"state": "translated", "value": "%lld files"}}}}}}}, "Open": {}}, "version": "1.0"}\n',
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
