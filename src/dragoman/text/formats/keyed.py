"""Keyed strings in files of one language each, as software stores its translations: joined by file and key
path.

``*/translations/en.json`` and ``*/translations/es.json`` pair where ``*`` matches the same text in both. Within a pair
of files the strings under the same keys translate each other. The files may be in a folder, in a zip or wheel (read
without unpacking), or in a wheel on the Python package index.
"""

import importlib
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dragoman.config import config
from dragoman.errors import ConfigError, DataError
from dragoman.text import fetch
from dragoman.text.formats.kinds import KEYED
from dragoman.text.lines import AnnotatedPair, Pair


@config
class Keyed:
    """Pairs from keyed strings in files of two languages."""

    root: str
    """Folder, .zip or .whl file, or pypi:NAME==VERSION for a wheel that is fetched once and cached."""
    source: str
    """Pattern of the source files, such as */translations/en.json; a * matches any text, folders included."""
    target: str
    """Pattern of the target files, with as many * as the source; files pair where every * matches the same text."""
    sha256: str | None = None
    """Checksum of the zip or wheel, verified whenever it is opened."""


def read_keyed(cfg: Keyed) -> Iterator[Pair | None]:
    """Yield the pairs of strings with the same file and keys in both languages, ordered by file, then as in the source;
    None after each file."""
    if cfg.source.count("*") != cfg.target.count("*"):
        raise ConfigError(f"{cfg.source!r} and {cfg.target!r}: give both patterns the same number of *")
    for pattern in (cfg.source, cfg.target):
        _kind(pattern)
    with _open(cfg) as files:
        for source, target in _join(files, cfg):
            translations, here = dict(_read(files, target).texts), _read(files, source)
            if not here.numbered or [key for key, _ in here.texts] == list(translations):
                yield from (
                    AnnotatedPair.of(text, translations[key], here.notes.get(key, ()))
                    for key, text in here.texts
                    if key in translations
                )
            yield None


# ---- folders and archives -------------------------------------------------------------------------


class _Files(ABC):
    """Files by name, relative to a root, with forward slashes."""

    def __init__(self, root: Path):
        self.root = root

    @abstractmethod
    def names(self) -> list[str]: ...

    @abstractmethod
    def read(self, name: str) -> bytes: ...

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Folder(_Files):
    def names(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.root / name}: cannot be read: {error.strerror or error}") from None


class _Zip(_Files):
    def __init__(self, root: Path):
        super().__init__(root)
        try:
            self.archive = zipfile.ZipFile(root)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{root}: not a zip file, or damaged ({error}): fetch it again") from None

    def names(self) -> list[str]:
        return sorted(name for name in self.archive.namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{self.root}: {name} in it cannot be read: {error}") from None

    def __exit__(self, *_: object) -> None:
        self.archive.close()


def _open(cfg: Keyed) -> _Files:
    path = fetch.fetch_wheel(cfg.root, cfg.sha256) if cfg.root.startswith(fetch.PREFIX) else Path(cfg.root)
    if not path.exists():
        raise DataError(f"{path}: no such folder or file")
    if path.is_dir():
        if cfg.sha256:
            raise ConfigError(f"{path}: sha256 is for a zip or wheel, this is a folder")
        return _Folder(path)
    if cfg.sha256:
        fetch.verify(path, cfg.sha256)
    return _Zip(path)


# ---- pairing files --------------------------------------------------------------------------------


def _join(files: _Files, cfg: Keyed) -> list[tuple[str, str]]:
    """Return the names of the source and target files that belong together."""
    names = files.names()
    sources, targets = by_wildcards(cfg.source, names), by_wildcards(cfg.target, names)
    for pattern, found in ((cfg.source, sources), (cfg.target, targets)):
        if not found:
            beside = _beside(sources or targets, names)
            raise DataError(f"{files.root}: none of its {len(names):,} files matches {pattern!r}{beside}")
    both = [wildcards for wildcards in sources if wildcards in targets]
    if not both:
        raise DataError(
            f"{files.root}: {len(sources):,} files match {cfg.source!r} and {len(targets):,} match {cfg.target!r}, "
            f"but * never matches the same text; for example {min(sources.values())} and {min(targets.values())}"
        )
    return [(sources[wildcards], targets[wildcards]) for wildcards in both]


def by_wildcards(pattern: str, names: Iterable[str]) -> dict[tuple[str, ...], str]:
    """Map the texts that the * of the pattern match to the name, for every name that matches."""
    literal = re.compile("(.*)".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    return {found.groups(): name for name in names if (found := literal.fullmatch(name))}


def _beside(found: dict[tuple[str, ...], str], names: list[str]) -> str:
    """Return a hint with the names in the folders of the files that were found: most likely the languages available."""
    folders = {PurePosixPath(name).parent for name in found.values()}
    stems = sorted({path.stem for path in map(PurePosixPath, names) if path.parent in folders})
    return f"; next to the files of the other language are {', '.join(stems)}" if stems else ""


# ---- strings of a file ----------------------------------------------------------------------------


class KeyedStrings(NamedTuple):
    """Strings of a file with their keys."""

    texts: list[tuple[str, str]]
    numbered: bool
    """True for entries without names, such as the parts of a page: they pair only if all of them do."""
    notes: dict[str, tuple[str, ...]]
    """Notes of the file on its strings, where it has any."""


def _read(files: _Files, name: str) -> KeyedStrings:
    """Return the strings of a file, as its translation would find them."""
    where = str(files.root / name) if isinstance(files, _Folder) else f"{files.root}: {name}"
    opening = importlib.import_module("dragoman.text.filled.opening")  # which stands above, and knows every document
    document = opening.document_of(lambda: files.read(name), where, kind=_kind(name))
    notes = {slot.key: slot.notes for slot in document.slots if slot.notes}
    return KeyedStrings([(slot.key, slot.text) for slot in document.slots], document.numbered, notes)


def _kind(pattern: str) -> str:
    """Return the extension of a pattern or name.

    Raises:
        ConfigError: files of this kind hold no strings by keys.
    """
    extension = PurePosixPath(pattern).suffix.lower()
    if extension not in KEYED:
        raise ConfigError(
            f"{pattern!r}: strings are read from {', '.join(KEYED)} files, not from {extension or 'these'}"
        )
    return extension
