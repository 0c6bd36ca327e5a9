"""Translating a file of translations: what `dragoman translate` does with PO, XLIFF and TMX."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.errors import DataError

if TYPE_CHECKING:
    from dragoman.decode.documents.ways import Require
    from dragoman.decode.translation import Translation
    from dragoman.text.context import NoContext, SentencesBefore
    from dragoman.text.filled.slots import Document


def opened(text: str | None, source: str | None, target: str | None) -> "Document | None":
    """The document that an argument names; None if it is text, or a file of lines."""
    from dragoman.text.filled.document import KINDS, open_document

    if text is None or not text.lower().endswith((*KINDS, ".mo")):
        return None
    if not Path(text).is_file():
        if " " in text:
            return None  # a sentence, after all
        raise DataError(f"{text}: no such file")
    return open_document(text, source=source, target=target)


def fill(
    document: "Document",
    ask: Callable[..., "list[Translation]"],
    *,
    require: "Require",
    context: "NoContext | SentencesBefore",
    output: Path | None,
    redo: bool,
    flag_below: float | None,
) -> None:
    """Translate what is missing, and write the document; what is to be said goes to standard error."""
    from dragoman.cli.terminal import tracked
    from dragoman.decode.documents.document import translate_document
    from dragoman.text.formats.compressed import create_file

    with tracked("translating", len(document.slots)) as progress:
        done = translate_document(
            document,
            lambda texts, tell: ask(texts, progress=tell),
            redo=redo,
            flag_below=flag_below,
            require=require,
            context=context,
            progress=progress,
        )
    if output is None:
        sys.stdout.buffer.write(done.content)
        sys.stdout.buffer.flush()
    else:
        with create_file(output) as file:
            file.write(done.content)
    for warning in done.warnings:
        print(f"dragoman: {warning}", file=sys.stderr)
    flagged = f", {done.flagged:,} of them marked for review" if flag_below is not None else ""
    print(f"{done.filled:,} translated{flagged}; {done.left:,} were there and are as they were", file=sys.stderr)
