"""Translation as work on shards."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dragoman.checkpoint import checkpoint_at
from dragoman.decode.documents.line_translation import LineSettings, LineTranslator
from dragoman.decode.translation import Translation
from dragoman.errors import CheckpointError
from dragoman.serve.bulk.shard import Shard, ShardAnswer, ShardAnswerer, ShardProgress, ShardWork
from dragoman.serve.safety.lines import GuardedLines
from dragoman.serve.safety.page import SafetyPage
from dragoman.snapshot import Damaged


class LineLayout(Protocol):
    """Turns a translation into output lines, and notes for the reader."""

    def lines(self, translation: Translation) -> Iterable[str]: ...

    def remarks(self, translation: Translation) -> Iterable[str]: ...


@dataclass(frozen=True)
class PlainLayout:
    """The translation alone, one line each."""

    def lines(self, translation: Translation) -> Iterable[str]:
        """Return its text."""
        return (translation.text,)

    def remarks(self, translation: Translation) -> Iterable[str]:
        """Return its warnings."""
        return translation.warnings


@dataclass(frozen=True)
class TranslationWork(ShardWork):
    """Translates the lines of a shard."""

    settings: LineSettings
    layout: LineLayout = PlainLayout()
    lines_before: int = 0
    safety: str | None = None
    """A safety page, applied to each line."""

    def options(self) -> dict[str, Any]:
        """Return what the answers depend on, besides the model and the layout, as plain data."""
        page = hashlib.sha256(Path(self.safety).read_bytes()).hexdigest()[:16] if self.safety else None
        return self.settings.plain() | {"safety": page}

    def open(self) -> "TranslationAnswerer":
        lines = self.settings.open()
        return TranslationAnswerer(
            GuardedLines(lines, SafetyPage.read(self.safety)) if self.safety else lines, self.layout
        )


class TranslationAnswerer(ShardAnswerer):
    """Loaded translator, with the layout of its output."""

    def __init__(self, translator: LineTranslator | GuardedLines, layout: LineLayout):
        self.translator, self.layout = translator, layout

    def answer(self, shard: Shard, progress: ShardProgress) -> ShardAnswer:
        def report(done: int, total: int) -> None:
            progress(len(shard.lines) * done // max(1, total))

        translations = list(
            self.translator.stream(shard.lines, first_row=shard.first_row, before=shard.before, progress=report)
        )
        assert len(translations) == len(shard.lines), "each line has one translation"
        return ShardAnswer(
            [line for one in translations for line in self.layout.lines(one)],
            tuple(text for one in translations for text in self.layout.remarks(one)),
        )


def model_identity(run: Path, checkpoint: str) -> dict[str, Any]:
    """Return what distinguishes the model of a run from every other one, without loading it.

    Raises:
        CheckpointError: no such run or checkpoint, or a damaged one.
    """
    found = checkpoint_at(run, checkpoint)
    try:
        return {"checkpoint": found.path.resolve().name, "seal": found.seal()}
    except Damaged as damage:
        raise CheckpointError(str(damage)) from None
