"""Kinds of files, by name and by content: those that hold lines of text, and all others.

A file of another kind read line by line gives nonsense: keys, markup and times would be taken for text. So each kind is
listed here. Nothing reads those in ``UNSUPPORTED`` yet. To support one, remove its extensions there and add its opener
(``text/filled/opening.py``) or reader (``text/formats/pairs.py``).
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dragoman.errors import DataError
from dragoman.text.compressed import extension
from dragoman.text.lines import read_lines

LINES = (".txt", ".text")
"""Extensions of plain text; unknown extensions are taken for it as well."""
TABLES = {
    ".csv": "a table",
    ".tsv": "a table",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".parquet": "a Parquet table",
}
"""Descriptions by extension of files of which one column may be read as lines."""
DOCUMENTS = {
    ".po": "a gettext file",
    ".pot": "a gettext template",
    ".mo": "a compiled gettext file",
    ".xlf": "an XLIFF file",
    ".xliff": "an XLIFF file",
    ".tmx": "a TMX file",
    ".json": "JSON",
    ".arb": "an application resource bundle",
    ".xml": "XML",
    ".resx": "a .NET resource file",
    ".resw": "a Windows resource file",
    ".strings": "an Apple strings file",
    ".stringsdict": "an Apple stringsdict file",
    ".xcstrings": "an Apple string catalog",
    ".properties": "a Java properties file",
    ".ftl": "a Fluent file",
    ".yml": "YAML",
    ".yaml": "YAML",
    ".ts": "a Qt translation file or TypeScript",
    ".srt": "subtitles",
    ".vtt": "subtitles",
    ".md": "Markdown",
    ".markdown": "Markdown",
    ".html": "HTML",
    ".htm": "HTML",
    ".xhtml": "HTML",
    ".docx": "a Word document",
    ".xlsx": "a spreadsheet",
    ".pptx": "a presentation",
    ".odt": "an OpenDocument text",
    ".ods": "an OpenDocument spreadsheet",
    ".odp": "an OpenDocument presentation",
    ".epub": "an e-book",
}
"""Descriptions by extension of files that can be filled or, for .mo, compiled again."""
BILINGUAL = (".po", ".pot", ".mo", ".xlf", ".xliff", ".tmx", ".ts", ".xcstrings")
"""Those of them that hold sources and translations; each of the others is in one language."""
KEYED = tuple(ending for ending in DOCUMENTS if ending not in BILINGUAL)
"""Documents in one language, whose entries pair with those of another file."""
UNSUPPORTED = {
    ".json5": "JSON",
    ".jsonc": "JSON",
    ".plist": "a property list",
    ".toml": "TOML",
    ".ini": "an INI file",
    ".lang": "a language file of keys and values",
    ".php": "PHP",
    ".qm": "a compiled Qt translation file",
    ".rc": "a Windows resource script",
    ".ass": "subtitles",
    ".ssa": "subtitles",
    ".sub": "subtitles",
    ".sbv": "subtitles",
    ".ttml": "subtitles",
    ".lrc": "song lyrics with times",
    ".mdx": "Markdown",
    ".rst": "reStructuredText",
    ".adoc": "AsciiDoc",
    ".svg": "SVG",
    ".dita": "DITA",
    ".tex": "LaTeX",
    ".bib": "BibTeX",
    ".ipynb": "a Jupyter notebook",
    ".js": "JavaScript",
    ".jsx": "JavaScript",
    ".tsx": "TypeScript",
    ".vue": "a Vue component",
    ".css": "CSS",
    ".py": "Python",
    ".java": "Java",
    ".sql": "SQL",
    ".eml": "an e-mail",
    ".ics": "a calendar",
    ".vcf": "contacts",
    ".rtf": "rich text",
    ".doc": "a Word document",
    ".xls": "a spreadsheet",
    ".ppt": "a presentation",
    ".idml": "an InDesign document",
    ".pdf": "PDF",
    ".sdlxliff": "an XLIFF file of Trados",
    ".mqxliff": "an XLIFF file of memoQ",
    ".tbx": "a TBX glossary",
    ".zip": "an archive",
    ".tar": "an archive",
    ".tgz": "an archive",
    ".7z": "an archive",
    ".png": "an image",
    ".jpg": "an image",
    ".jpeg": "an image",
    ".gif": "an image",
}
"""Ending -> what a file is that no command reads yet."""
READABLE = (
    *(".md", ".markdown", ".mdx", ".rst", ".adoc", ".tex", ".bib", ".html", ".htm", ".xhtml"),
    *(".js", ".jsx", ".ts", ".tsx", ".vue", ".css", ".py", ".java", ".php", ".sql", ".toml", ".ini"),
)
"""Endings of other kinds whose files a language model may learn from as they stand: prose with markup, and code."""
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_OPENINGS = (
    (re.compile(r'\s*msgid\s*"'), "a gettext file (translate fills it with --as po)"),
    (re.compile(r"\s*<xliff[\s>]"), "an XLIFF file (translate fills it with --as xliff)"),
    (re.compile(r"\s*<tmx[\s>]"), "a TMX file (translate fills it with --as tmx)"),
    (re.compile(r"\s*<\?xml\s"), "XML (translate fills XLIFF and TMX with --as xliff and --as tmx)"),
    (re.compile(r"\s*<!doctype\s", re.IGNORECASE), "HTML or XML"),
    (re.compile(r"\s*WEBVTT\b"), "subtitles"),
    (re.compile(r"\s*\{\\rtf"), "rich text"),
)
"""Patterns of first lines that no plain text has, and the kinds of files that have them."""
_COMMENT = re.compile(r"\s*(#.*)?$")


def is_known(name: str) -> bool:
    """Return True if a name has a known file extension."""
    kinds = (LINES, TABLES, DOCUMENTS, UNSUPPORTED)
    return name.lower().endswith(COMPRESSED) or any(extension(name) in kind for kind in kinds)


def kind_of_file(path: str) -> str | None:
    """Describe a file of another kind by its name; None if its name allows plain text."""
    ending = extension(path)
    return TABLES.get(ending) or DOCUMENTS.get(ending) or UNSUPPORTED.get(ending)


def read_plain_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a text file, as ``read_lines`` does.

    Raises:
        DataError: as ``read_lines``, or a file of another kind, by its name or its first lines.
    """
    if kind := kind_of_file(str(path)):
        raise DataError(f"{path}: {kind}: a text file with a sentence in each line expected")
    return plain_lines(read_lines(path), str(path))


def check_text_kind(path: str) -> None:
    """
    Raises:
        DataError: the file is of a kind that is no text to learn from as it stands, by its name.
    """
    if (kind := kind_of_file(path)) and extension(path) not in READABLE:
        raise DataError(
            f"{path}: {kind}: expected text (.txt, Markdown, source code and the like) or JSON lines; take the text "
            "out of it first, or name it .txt to learn from its lines as they stand"
        )


def plain_lines(lines: Iterable[str], name: str, remedy: str = "") -> Iterator[str]:
    """Yield the lines unchanged, but refuse those of a file of another kind, whose name did not show it. Comments may
    come first.

    Raises:
        DataError: the lines begin like a file of another kind.
    """
    lines = iter(lines)
    for number, line in enumerate(lines, 1):
        for opening, kind in _OPENINGS:
            if opening.match(line):
                raise DataError(f"{name}:{number}: this is {kind}, not lines of text{remedy}")
        yield line
        if not _COMMENT.match(line):
            break
    yield from lines
