"""dragoman check: what may be wrong with translations that people or programs made."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.errors import ConfigError, DataError
from dragoman.text.check_names import CHECK_NAMES

if TYPE_CHECKING:
    from dragoman.text.checks import Translated


def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Files with sources and translations (.po, .xlf, .tmx, .ts, .tsv, ...), or two files of one format by "
            "language, as in en.json,de.json.",
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK",
            help=f"Run this check alone: {', '.join(map(shlex.quote, CHECK_NAMES))}; may be repeated.",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Leave this check out, named as for --only; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object for each finding.")] = False,
    source_language: Annotated[
        str | None, typer.Option("--source-language", "--from", metavar="LANGUAGE", help="Source of a .tmx file.")
    ] = None,
    target_language: Annotated[
        str | None,
        typer.Option("--target-language", "--to", metavar="LANGUAGE", help="Target of a .tmx or .xcstrings file."),
    ] = None,
) -> None:
    """Check translations: placeholders, numbers, markup and more (--only lists all). Exit 1 if any has a finding.

    No model is needed. A finding is a line with file and line of the translation; it may be right all the same.
    """
    from dragoman.config import unknown
    from dragoman.text.checks import CHECKS, find_problems

    for name in (*(only or ()), *(skip or ())):
        if name not in CHECKS:
            raise ConfigError(unknown("check", name, list(CHECKS)))
    wanted = [name for name in only or CHECKS if name not in (skip or ())]
    checked = found = 0
    for name in files:
        for pair in _pairs(name, source_language, target_language):
            checked += 1
            for finding in find_problems(pair):
                if finding.check in wanted:
                    found += 1
                    print(json.dumps(finding._asdict(), ensure_ascii=False) if as_json else _line(*finding))
    print(f"{checked:,} translations checked, {found:,} findings", file=sys.stderr)
    if found:
        raise typer.Exit(1)


def _line(place: str, check: str, message: str, source: str, translation: str) -> str:
    return f"{place}: {check}: {message}: {_short(source)} -> {_short(translation)}"


def _short(text: str) -> str:
    text = text.replace("\n", "\\n")
    return f"{text[:60]}..." if len(text) > 63 else text


def _pairs(name: str, source: str | None, target: str | None) -> "Iterator[Translated]":
    """Yield the translations in a file, or between two files.

    Raises:
        DataError, ConfigError: a file that cannot be read, or that has one language alone.
    """
    from dragoman.text.checks import translations_between, translations_in
    from dragoman.text.compressed import extension
    from dragoman.text.filled.opening import KINDS, open_document
    from dragoman.text.formats.tables import SPLITTERS

    if os.path.isdir(name):
        raise DataError(f"{name}: is a folder: name the files in it, as in {name}/*.po")
    first, comma, second = name.partition(",")
    if comma and extension(first) in KINDS and extension(first) == extension(second):
        originals = open_document(first.strip(), source=source)
        translations = open_document(second.strip(), source=target)
        if not originals.pairs_with(translations):
            raise DataError(
                f"{second.strip()}: has other parts than {first.strip()}: which translates which is unclear"
            )
        if not originals.bilingual:
            pairs = list(translations_between(originals, translations))
            if not pairs and originals.slots and translations.slots:
                raise DataError(f"{second.strip()}: none of its entries is in {first.strip()}: other keys are there")
            yield from pairs
            return
    as_rows = extension(name) in SPLITTERS and not (source and target)
    if extension(name) in KINDS and not comma and not as_rows:
        document = open_document(name, source=source, target=target)
        if not document.bilingual:
            raise ConfigError(f"{name}: holds one language: name the file of the source as well, as in SOURCE,{name}")
        yield from translations_in(document)
        return
    yield from _rows(name)


def _rows(name: str) -> "Iterator[Translated]":
    """Yield the pairs of a table, of JSON lines, or of two files of lines."""
    from dragoman.text.checks import Translated
    from dragoman.text.formats.pairs import guess_source, read_pairs

    try:
        for number, pair in enumerate(read_pairs(guess_source(name)), 1):
            yield Translated(f"{name}: pair {number}", pair.source, pair.target)
    except ConfigError as error:
        raise DataError(str(error)) from None
