"""Parallel text named by a folder, by a pattern such as ``locale/**/*.po``, or by one file."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension
from dragoman.text.formats.bilingual import QT, is_qt
from dragoman.text.formats.kinds import KEYED as KINDS
from dragoman.text.formats.pairs import (
    PAIR_ENDINGS,
    ColumnNames,
    Keyed,
    PairSource,
    Part,
    Table,
    TextFiles,
    guess_source,
)

KEYED = ("{}.json", "{}/*.json", "*/{}.json", "*/{}/*.json", "*.{}.json", "*_{}.json", "*-{}.json")
"""Patterns of one language's files in a folder of JSON files."""
SHOWN = 3


def guess_sources(path: str, columns: ColumnNames | None = None) -> list[PairSource]:
    """Find the sources of ``path``: a file as in ``guess_source``, every such file that matches a pattern, or every one
    in a folder. For a folder of JSON files by language, or of text files such as ``a.en`` and ``a.es``, ``columns`` are
    the languages.

    Raises:
        ConfigError, DataError: as ``guess_source``; or nothing matches, or nothing in the folder holds pairs.
    """
    if os.path.isdir(path):
        return _in_folder(Path(path), columns)
    if (found := _LANGUAGES.search(path)) and not os.path.exists(path):
        return _by_languages(path, found)
    two = [extension(part) for part in path.split(",")]
    if len(two) == 2 and two[0] == two[1] and two[0] in KINDS and not os.path.exists(path):
        return [_keyed_by_patterns(path)]
    if not glob.has_magic(path) or os.path.exists(path):
        return [guess_source(path, columns)]
    if "," in path:
        return [_keyed_by_patterns(path)]
    found = sorted(name for name in glob.glob(path, recursive=True) if not os.path.isdir(name))
    if not found:
        raise DataError(f"{path}: no file matches this pattern")
    return [guess_source(name, columns) for name in found]


_LANGUAGES = re.compile(r"\{(?:source(?:=(?P<source>[\w-]+))?|(?P<first>[\w-]+)),\s*(?:target=)?(?P<target>[\w-]+)\}")
"""Two languages in a pattern: ``{en,de}``, ``{source=en,target=de}``, or ``{source,target=de}``."""


def _by_languages(path: str, found: re.Match[str]) -> list[PairSource]:
    """Return the files of ``locale/{en,de}/**/*.json``: pairs of files, or those of the target if they hold both."""
    source, target = found["source"] or found["first"] or "en", found["target"]
    named = [path[: found.start()] + language + path[found.end() :] for language in (source, target)]
    named = [
        _LANGUAGES.sub(lambda _, language=language: language, name)
        for language, name in zip((source, target), named, strict=True)
    ]
    if extension(path) in KINDS:
        return [_keyed_by_patterns(",".join(named))]
    return guess_sources(named[1])


def _keyed_by_patterns(path: str) -> Keyed:
    """Return the files of two languages: ``locales/en/*.json,locales/es/*.json``."""
    patterns = [
        pattern.strip().replace("**/*", "*").replace("**/", "*").replace("**", "*") for pattern in path.split(",")
    ]
    if len(patterns) != 2 or any(extension(pattern) not in KINDS for pattern in patterns):
        raise ConfigError(
            f"{path}: two patterns are for files by language ({', '.join(KINDS[:4])}, ...), as in "
            "locales/en/*.json,locales/es/*.json"
        )
    root = os.path.commonpath([os.path.dirname(glob.escape(p).partition("[")[0]) or "." for p in patterns])
    source, target = (os.path.relpath(pattern, root) for pattern in patterns)
    return Keyed(root=root, source=source, target=target)


def _in_folder(folder: Path, columns: ColumnNames | None) -> list[PairSource]:
    names = list(_files(folder))
    if not names:
        raise DataError(f"{folder}: an empty folder: there is no file in it")
    pairs = [name for name in names if extension(name) in PAIR_ENDINGS and (extension(name) != QT or is_qt(name))]
    if pairs:
        sources = {name for name in pairs if extension(name) != ".mo"}
        return [
            guess_source(name, None if extension(name) in _WITHOUT_COLUMNS else columns)
            for name in pairs
            if name in sources or not _beside(name, sources)
        ]
    if columns is None:
        raise DataError(
            f"{folder}: no file in it holds pairs by its name ({', '.join(PAIR_ENDINGS)}){_available(names)}; for "
            "files by language (en.json, train.en), name the languages: --columns en,es"
        )
    if found := [*_keyed(folder, columns), *_texts(names, columns)]:
        return found
    raise DataError(f"{folder}: no JSON or text files for the languages {' and '.join(columns)}{_available(names)}")


_WITHOUT_COLUMNS = (".po", ".mo", ".xlf", ".xliff", QT)


def _files(folder: Path) -> Iterator[str]:
    """Yield all files of a folder and those below it, in order, except hidden ones."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield str(path)


def _beside(name: str, others: set[str]) -> bool:
    """Return True if a compiled file has its source next to it."""
    return f"{name.removesuffix('.mo')}.po" in others


def _keyed(folder: Path, languages: ColumnNames) -> list[Keyed]:
    for pattern in KEYED:
        source, target = (pattern.format(language) for language in languages)
        if all(any(folder.rglob(side) if side.startswith("*") else folder.glob(side)) for side in (source, target)):
            return [Keyed(root=str(folder), source=source, target=target)]
    return []


def _texts(names: list[str], languages: ColumnNames) -> list[TextFiles]:
    """Return pairs of files whose names differ in the language they end in: ``train.en``, ``train.es``."""
    source, target = (f".{language}" for language in languages)
    stems = [name.removesuffix(source) for name in names if name.endswith(source)]
    return [TextFiles(source=stem + source, target=stem + target) for stem in stems if stem + target in names]


def _available(names: list[str]) -> str:
    shown = ", ".join(Path(name).name for name in names[:SHOWN])
    return f"; there are {shown}{', ...' if len(names) > SHOWN else ''}"


def describe_columns(source: PairSource) -> str | None:
    """Describe how a table is read if its header decided it; None where there is nothing to report."""
    table = source.pairs if isinstance(source, Part) else source
    if not isinstance(table, Table) or not (isinstance(table.source, str) and isinstance(table.target, str)):
        return None
    return f"{table.path}: columns {table.source} (source) and {table.target} (target), named in its first row"
