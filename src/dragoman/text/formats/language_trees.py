"""Files of a tree that translate each other, by the languages in their paths."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dragoman.text.compressed import extension
from dragoman.text.formats.kinds import KEYED
from dragoman.text.formats.localized_paths import NEUTRAL, localized_path, neutral_path

_HEAD = 1 << 14
"""Bytes in which an XML file of Android names its outermost element."""
_WILDCARD = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])")
_GROUPS = {"**/": "((?:.*/)?)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}


class LanguagePair(NamedTuple):
    """File and its translation, relative to the root of their tree, with forward slashes."""

    source: str
    target: str


def folder_twins(root: Path, source: str, target: str) -> list[LanguagePair]:
    """Return the files below a folder whose translation lies there too, by their names; hidden ones are left out.

    Args:
        source, target: languages.
    """
    paths = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    there = {path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)}
    found = []
    for name in sorted(there):
        goals = [localized_path(name, source, target), *([neutral_path(name, target)] * name.endswith(NEUTRAL))]
        goal = next((goal for goal in goals if goal != name and goal in there), None)
        if goal is not None and _holds_strings(root / name):
            found.append(LanguagePair(name, goal))
    return found


def pattern_twins(root: str, patterns: Sequence[str], source: str, target: str) -> Iterator[LanguagePair]:
    """Yield the files that match a pattern, each with that of the other pattern that translates it.

    Args:
        root: folder above all of them.
        patterns: those of source and target, with the same wildcards: ``locale/en/**/*.arb``, ``locale/de/**/*.arb``.
        source, target: languages, which names inside the folders may have too: ``app_en.arb``.
    """
    sources, targets = ({os.path.relpath(name, root) for name in glob.glob(p, recursive=True)} for p in patterns)
    pieces = [_WILDCARD.split(os.path.relpath(pattern, root)) for pattern in patterns]
    literal = re.compile("".join(map(_as_regular_expression, pieces[0])), re.DOTALL)
    for name in sorted(sources):
        if (found := literal.fullmatch(name)) and _holds_strings(Path(root, name)):
            groups = iter(found.groups())
            same = "".join(next(groups) if _WILDCARD.fullmatch(piece) else piece for piece in pieces[1])
            goals = (same, localized_path(same.replace(os.sep, "/"), source, target))
            if goal := next((goal for goal in goals if goal in targets and goal != name), None):
                yield LanguagePair(name.replace(os.sep, "/"), goal.replace(os.sep, "/"))


def _as_regular_expression(piece: str) -> str:
    if not _WILDCARD.fullmatch(piece):
        return re.escape(piece)
    return _GROUPS.get(piece) or f"({piece.replace('[!', '[^')})"


def _holds_strings(path: Path) -> bool:
    """Return True for a file in one language, of a format with texts: of XML files, only Android's have some."""
    if extension(path) not in KEYED or not path.is_file():
        return False
    if extension(path) != ".xml":
        return True
    with path.open("rb") as file:
        return b"<resources" in file.read(_HEAD)
