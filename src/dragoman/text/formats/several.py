"""Parallel text named by a folder, by a pattern such as ``locale/**/*.po``, or by one file."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension
from dragoman.text.formats.bilingual import QT, is_qt
from dragoman.text.formats.keyed import by_wildcards
from dragoman.text.formats.kinds import KEYED as KINDS
from dragoman.text.formats.language_trees import LanguagePair, folder_twins, pattern_twins
from dragoman.text.formats.localized_paths import is_language, language_in, same
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


_SOURCE, _DEFAULT = "source", "en"


def _by_languages(path: str, found: re.Match[str]) -> list[PairSource]:
    """Return the files of ``locale/{en,de}/**/*.json``: pairs of files, or those of the target if they hold both; of a
    pattern without an extension, such as ``locale/{en,de}/**``, those of every format."""
    source, target = found["source"] or found["first"] or _SOURCE, found["target"]
    if source == _SOURCE and not glob.glob(_filled_in(path, source), recursive=True):
        source = _DEFAULT
    languages = (_DEFAULT if source == _SOURCE else source), target
    kind = extension(path)
    if not kind or "*" in kind:
        return _of_every_kind(path, source, languages)
    patterns = [_filled_in(path, language) for language in (source, target)]
    if kind in KINDS:
        return _keyed_pairs(patterns, languages)
    return guess_sources(patterns[1] if kind in PAIR_ENDINGS else ",".join(patterns))


def _filled_in(path: str, language: str) -> str:
    return _LANGUAGES.sub(lambda _: language, path)


def _of_every_kind(path: str, source: str, languages: tuple[str, str]) -> list[PairSource]:
    """Return the files of a tree that hold both languages, and the pairs of those that hold one."""
    base = path.rstrip("/") + ("/*" if path.endswith("**") else "" if path.endswith("*") else "/**/*")
    patterns = [_filled_in(base, one) for one in (source, languages[1])]
    names = [sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True))) for pattern in patterns]
    found: list[PairSource] = [
        guess_source(name)
        for name in names[1]
        if extension(name) in _WITHOUT_COLUMNS and (extension(name) != QT or is_qt(name)) and not _is_beside(name)
    ]
    for kind in sorted({extension(name) for name in names[0]} & set(KINDS)):
        of_kind = [f"{pattern}{kind}" for pattern in patterns]
        if any(pattern_twins(_root(of_kind), of_kind, *languages)):
            found += _keyed_pairs(of_kind, languages)
    if not found:
        raise DataError(f"{path}: no file there has a translation beside it, and none holds both languages")
    return found


def _is_beside(name: str) -> bool:
    """Return True for a compiled catalogue whose source lies next to it."""
    return extension(name) == ".mo" and os.path.exists(f"{name.removesuffix('.mo')}.po")


def _keyed_pairs(patterns: list[str], languages: tuple[str, str]) -> list[PairSource]:
    """Return the files of two languages: by pattern where only the pattern differs, else one by one."""
    root = _root(patterns)
    found = list(pattern_twins(root, patterns, *languages))
    whole = _keyed_by_patterns(",".join(patterns))
    if not found or all(_same_wildcards(whole, pair) for pair in found):
        return [whole]
    return [Keyed(root=root, source=pair.source, target=pair.target) for pair in found]


def _same_wildcards(patterns: Keyed, pair: LanguagePair) -> bool:
    """Return True if the wildcards of both patterns stand for the same text in the names of two files."""
    first, second = by_wildcards(patterns.source, [pair.source]), by_wildcards(patterns.target, [pair.target])
    return bool(first) and first.keys() == second.keys()


def _root(patterns: Sequence[str]) -> str:
    """Return the folder above all files that match."""
    return os.path.commonpath([os.path.dirname(glob.escape(p).partition("[")[0]) or "." for p in patterns])


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
    root = _root(patterns)
    source, target = (os.path.relpath(pattern, root) for pattern in patterns)
    return Keyed(root=root, source=source, target=target)


def _in_folder(folder: Path, columns: ColumnNames | None) -> list[PairSource]:
    names = list(_files(folder))
    if not names:
        raise DataError(f"{folder}: an empty folder: there is no file in it")
    languages = columns if columns and all(isinstance(one, str) and is_language(one) for one in columns) else None
    pairs = [name for name in names if extension(name) in PAIR_ENDINGS and (extension(name) != QT or is_qt(name))]
    if pairs:
        return [
            *(
                guess_source(name, None if extension(name) in _WITHOUT_COLUMNS else columns)
                for name in (_of_target(folder, pairs, languages[1]) if languages else pairs)
                if not _is_beside(name)
            ),
            *((*_keyed(folder, languages), *_texts(names, languages)) if languages else ()),
        ]
    if columns is None:
        raise DataError(
            f"{folder}: no file in it holds pairs by its name ({', '.join(PAIR_ENDINGS)}){_available(names)}; for "
            "files by language (en.json, train.en), name the languages: --columns en,es"
        )
    if found := [*_keyed(folder, columns), *_texts(names, columns)]:
        return found
    raise DataError(f"{folder}: no JSON or text files for the languages {' and '.join(columns)}{_available(names)}")


def _of_target(folder: Path, names: list[str], target: str) -> list[str]:
    """Return the files that hold both languages without those of another target, where paths name them."""
    stated = {name: _language_of(Path(name).relative_to(folder)) for name in names}
    if not any(one and same(one, target) for one in stated.values()):
        return names
    return [name for name, one in stated.items() if one is None or same(one, target)]


def _language_of(path: Path) -> str | None:
    """Return the language that a path names; None if it names none."""
    folders = (folder for folder in reversed(path.parts[:-1]) if is_language(folder))
    return language_in(path.as_posix()) or next(folders, None)


_WITHOUT_COLUMNS = (".po", ".mo", ".xlf", ".xliff", QT)


def _files(folder: Path) -> Iterator[str]:
    """Yield all files of a folder and those below it, in order, except hidden ones."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield str(path)


def _keyed(folder: Path, languages: ColumnNames) -> list[Keyed]:
    """Return the files in two languages: by one pattern if it is that of all of them, else one by one."""
    found = folder_twins(folder, *languages)
    for pattern in KEYED:
        source, target = (pattern.format(language) for language in languages)
        whole = Keyed(root=str(folder), source=source, target=target)
        if found and all(_same_wildcards(whole, pair) for pair in found):
            return [whole]
    return [Keyed(root=str(folder), source=pair.source, target=pair.target) for pair in found]


def _texts(names: list[str], languages: ColumnNames) -> list[TextFiles]:
    """Return pairs of files whose names differ in the language they end in: ``train.en``, ``train.es``."""
    source, target = (f".{language}" for language in languages)
    stems = [name.removesuffix(source) for name in names if name.endswith(source)]
    return [TextFiles(source=stem + source, target=stem + target) for stem in stems if stem + target in names]


def _available(names: list[str]) -> str:
    shown = ", ".join(Path(name).name for name in names[:SHOWN])
    return f"; there are {shown}{', ...' if len(names) > SHOWN else ''}"


def describe_reading(path: str, columns: ColumnNames | None, sources: Sequence[PairSource]) -> Iterator[str]:
    """Yield what to know about how ``guess_sources`` reads a path: tables that their header decided, files left out."""
    yield from filter(None, map(_by_header, sources))
    if columns is None and os.path.isdir(path) and (left := _in_one_language(Path(path))):
        shown = ", ".join([*left[:SHOWN], *(["..."] if left[SHOWN:] else [])])
        yield (
            f"{path}: {len(left):,} files in one language each are left out ({shown}): "
            "to read them too, name the languages: --columns en,es"
        )


def _by_header(source: PairSource) -> str | None:
    """Describe how a table is read if its header decided it; None where there is nothing to report."""
    table = source.pairs if isinstance(source, Part) else source
    if not isinstance(table, Table) or not (isinstance(table.source, str) and isinstance(table.target, str)):
        return None
    return f"{table.path}: columns {table.source} (source) and {table.target} (target), named in its first row"


def _in_one_language(folder: Path) -> list[str]:
    """Return the files of a folder that name their language: ``locales/en.json``, ``train.es``."""
    found = [Path(name).relative_to(folder) for name in _files(folder)]
    return [
        path.as_posix()
        for path in found
        if (_language_of(path) if extension(path) in KINDS else is_language(extension(path)[1:]))
    ]
