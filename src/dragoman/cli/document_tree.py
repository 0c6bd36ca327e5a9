"""Folders and patterns given to `dragoman translate`: the documents in them, and where each translation goes."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dragoman.errors import ConfigError, DataError


class TreeFile(NamedTuple):
    """File to translate, and its output."""

    name: str
    goal: Path
    source: str
    """Source language."""


def is_tree(argument: str) -> bool:
    """Return True for a folder, or for a pattern such as ``locales/**/*.po`` that is not the name of a file."""
    return os.path.isdir(argument) or (
        glob.has_magic(argument) and not os.path.lexists(argument) and len(argument.split()) == 1 and "/" in argument
    )


def tree_files(texts: Sequence[str], output: Path | None, source: str | None, target: str | None) -> list[TreeFile]:
    """Return the documents in folders, patterns and files, each with its output: in the folder ``output`` as it is
    below its own folder, with the names of the languages replaced.

    Raises:
        ConfigError: no output, or no target language where names need it.
        DataError: nothing to translate in one of them.
    """
    if output is None:
        raise ConfigError(f"{texts[0]}: the translations of a folder need one: name it, as in -o translated")
    if os.path.lexists(output) and not os.path.isdir(output):
        raise ConfigError(f"{output}: is a file: name a folder for the translations")
    return [found for text in texts for found in _below(text, output, source, target)]


def _below(text: str, output: Path, source: str | None, target: str | None) -> Iterator[TreeFile]:
    from dragoman.text.formats.localized_paths import is_language

    root = Path(text if os.path.isdir(text) else glob.escape(text).partition("[")[0].rpartition("/")[0] or ".")
    source = source or (root.name if is_language(root.name) else "en")
    names = sorted(str(name.relative_to(root)) for name in _files(text, root))
    here = os.path.realpath(root) == os.path.realpath(output)
    found = [
        TreeFile(str(root / name), output / goal, source)
        for name in map(_posix, names)
        if (goal := _goal(name, set(names), source, target, here=here)) is not None
    ]
    if not found and not os.path.isdir(text) and not glob.glob(text, recursive=True):
        raise DataError(f"{text}: no file matches this pattern")
    if not found:
        raise DataError(f"{text}: no document in it whose name ends in one of: {', '.join(_kinds())}")
    yield from found


def _posix(name: str) -> str:
    return name.replace(os.sep, "/")


def _kinds() -> tuple[str, ...]:
    from dragoman.text.filled.opening import KINDS

    return KINDS


def _files(text: str, root: Path) -> Iterator[Path]:
    """Yield the documents in a folder, hidden ones left out, or those that match a pattern."""
    from dragoman.text.compressed import extension

    found = root.rglob("*") if os.path.isdir(text) else map(Path, glob.glob(text, recursive=True))
    for path in found:
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not hidden and extension(path) in _kinds() and path.is_file():
            yield path


def _goal(name: str, names: set[str], source: str, target: str | None, *, here: bool) -> str | None:
    """Return where the translation of a file goes; None for a file of another language.

    Args:
        names: all files of the tree.
        here: it goes into the folder that it is in.
    """
    from dragoman.text.compressed import extension
    from dragoman.text.formats.kinds import BILINGUAL
    from dragoman.text.formats.localized_paths import NEUTRAL, language_in, localized_path, neutral_path, same

    goal = localized_path(name, source, target) if target else name
    stated = language_in(name)
    if goal == name and stated is not None and not same(stated, source):
        twin = localized_path(name, stated, source)
        in_folder = language_in(str(Path(name).with_name("x"))) is not None
        if in_folder or twin in names or _without(name, stated) in names:
            return None  # a translation that lies beside its source
    if goal != name or not here:
        return goal
    if target and name.endswith(NEUTRAL):
        return neutral_path(name, target)
    return name if extension(name) in BILINGUAL else None


def _without(name: str, language: str) -> str:
    """Return a name without the language at its end: ``App.resx`` for ``App.de.resx``."""
    path = Path(name)
    return _posix(str(path.with_name(path.stem.removesuffix(language).rstrip("._-") + path.suffix)))
