"""Translating documents: PO, XLIFF and TMX files given to `dragoman translate`."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dragoman.cli.argument import STDIN, is_file
from dragoman.config import unknown
from dragoman.errors import ConfigError, UserError

if TYPE_CHECKING:
    from dragoman.decode.constraints.glossary import Glossary
    from dragoman.decode.documents.document import DocumentSummary
    from dragoman.decode.documents.source_line import Require
    from dragoman.decode.translation import Translation
    from dragoman.text.context import NoContext, SentencesBefore
    from dragoman.text.document import FillableDocument


class Given(NamedTuple):
    """Document to translate, and its output."""

    name: str
    document: "FillableDocument"
    output: Path | None


def open_documents(
    texts: Sequence[str], source: str | None, target: str | None, output: Path | None, as_kind: str | None = None
) -> list[Given]:
    """Open the documents that the arguments name, each with its output; an empty list if they are text or lines.

    Raises:
        ConfigError: several documents without a folder to write them into, documents among other files, or an unknown
            ``as_kind``.
        DataError: a document that is missing or cannot be read.
    """
    from dragoman.text.filled.opening import KINDS

    kinds = {name: _kind(name, as_kind) for name in texts or [STDIN]}
    if not any(kinds.values()):
        return []
    if odd := [name for name, kind in kinds.items() if kind is None]:
        raise ConfigError(f"{odd[0]}: not a document ({', '.join(KINDS)}): translate it by itself")
    return [
        Given(name, _open(name, kind, source, target), goal)
        for (name, kind), goal in zip(kinds.items(), output_paths(list(kinds), output), strict=True)
        if kind is not None
    ]


def _kind(name: str, as_kind: str | None) -> str | None:
    """Return the extension of a document's format; None for text or lines."""
    from dragoman.cli.lines import INSIST
    from dragoman.text.compressed import extension
    from dragoman.text.filled.opening import KINDS

    if as_kind is not None:
        requested = f".{as_kind.lower().removeprefix('.')}"
        if requested not in (*KINDS, f".{INSIST}"):
            raise ConfigError(unknown("--as", as_kind, [INSIST, *(kind[1:] for kind in KINDS)]))
        return None if requested == f".{INSIST}" or not (name == STDIN or is_file(name)) else requested
    return extension(name) if is_file(name) and extension(name) in (*KINDS, ".mo") else None


def _open(name: str, kind: str, source: str | None, target: str | None) -> "FillableDocument":
    from dragoman.text.filled.opening import document_of, open_document

    if name == STDIN:
        return document_of(sys.stdin.buffer.read, "standard input", kind=kind, source=source, target=target)
    return open_document(name, kind=kind, source=source, target=target)


def output_paths(names: Sequence[str], output: Path | None) -> list[Path | None]:
    """Return where each of several files is written: into the folder ``output``, under its own name; one file to
    ``output``.

    Raises:
        ConfigError: several files without a folder, or of the same name.
    """
    inside = output is not None and os.path.isdir(output)
    if len(names) == 1 and not inside:
        return [output]
    if output is None or (os.path.lexists(output) and not inside):
        raise ConfigError(f"{names[1]}: several documents are written into a folder: name one, as in -o translated")
    if STDIN in names:
        raise ConfigError("-: standard input has no name to be written under in a folder: give -o a file")
    goals = [output / Path(name).name for name in names]
    if twice := [goal for goal in goals if goals.count(goal) > 1]:
        raise ConfigError(f"{twice[0]}: two of the files would be written there: translate them one by one")
    output.mkdir(parents=True, exist_ok=True)
    return list(goals)


def language_of(run: Path, texts: Sequence[str], as_kind: str | None) -> str | None:
    """Return the language that a run translates into, where its cleaning names it and ``texts`` holds a document."""
    from dragoman.checkpoint import run_config

    if not any(_kind(text, as_kind) for text in texts or [STDIN]):
        return None
    with suppress(UserError):  # a run that is missing is reported when it is loaded
        cleaning = (run_config(run).get("data") or {}).get("cleaning") or {}
        return cleaning.get("target_language")
    return None


def fill(
    document: "FillableDocument",
    ask: Callable[..., "list[Translation]"],
    *,
    require: "Require",
    context: "NoContext | SentencesBefore",
    check_numbers: bool,
    glossary: "Glossary | None",
    output: Path | None,
    redo: bool,
    flag_below: float | None,
) -> None:
    """Translate the unfilled slots and write the document; warnings and a summary go to standard error."""
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.documents.document import translate_document
    from dragoman.text.compressed import create_file

    with progress_bar("translating", len(document.slots)) as progress:
        translated = translate_document(
            document,
            ask,
            redo=redo,
            flag_below=flag_below,
            require=require,
            context=context,
            check_numbers=check_numbers,
            glossary=glossary,
            progress=progress,
        )
    if output is None:
        sys.stdout.buffer.write(translated.content)
        sys.stdout.buffer.flush()
    else:
        with create_file(output) as file:
            file.write(translated.content)
    for warning in translated.warnings:
        print(f"dragoman: {warning}", file=sys.stderr)
    print(_summary(translated), file=sys.stderr)


def _summary(translated: "DocumentSummary") -> str:
    """Return the number of translations of each kind: those with a warning do not count as translated."""
    flagged = f"; {translated.flagged:,} more filled in and marked for review" if translated.flagged else ""
    missing = f"; {translated.untranslated:,} left without a translation" if translated.untranslated else ""
    unchanged = f"; {translated.left:,} were already translated and are unchanged"
    return f"{translated.filled - translated.flagged:,} translated{flagged}{missing}{unchanged}"
