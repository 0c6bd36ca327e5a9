"""Translation of the rows of tables, as work on shards: only rows without a translation are translated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dragoman.decode.documents import placeholders
from dragoman.decode.documents.document import CHUNK
from dragoman.decode.documents.line_translation import LineSettings, LineTranslator
from dragoman.decode.documents.source_line import is_left_alone
from dragoman.decode.translation import Translation
from dragoman.serve.bulk.shard import Shard, ShardAnswer, ShardAnswerer, ShardProgress, ShardWork
from dragoman.serve.bulk.table_rows import TableRow


@dataclass(frozen=True)
class TableWork(ShardWork):
    """Translates the rows of a shard, as ``dragoman translate`` does with a table in memory."""

    settings: LineSettings
    lines_before: int = 0

    def options(self) -> dict[str, Any]:
        """Return what the answers depend on, besides the model, as plain data."""
        return self.settings.plain() | {"rows": "of a table"}

    def open(self) -> "TableAnswerer":
        return TableAnswerer(self.settings.open())


class TableAnswerer(ShardAnswerer):
    """Loaded translator."""

    def __init__(self, translator: LineTranslator):
        self.translator = translator

    def answer(self, shard: Shard, progress: ShardProgress) -> ShardAnswer:
        rows = [TableRow.read(line) for line in shard.lines]
        answers = self.translations(rows, [TableRow.read(line) for line in shard.before], progress)
        return ShardAnswer(
            [],
            tuple(
                f"{rows[number].place}: {warning.partition(': ')[2]}"
                for number, answer in answers.items()
                for warning in answer.warnings
            ),
            content="".join(
                row.written(answers[number].text if number in answers and not is_left_alone(answers[number]) else None)
                for number, row in enumerate(rows)
            ),
        )

    def translations(
        self, rows: Sequence[TableRow], before: Sequence[TableRow], progress: ShardProgress
    ) -> dict[int, Translation]:
        """Return the translations of the rows that have none, by their index."""
        known = [row for row in before if row.source.strip()]
        with_text = [number for number, row in enumerate(rows) if row.source.strip()]
        entries = [*known, *(rows[number] for number in with_text)]
        contexts = list(self.translator.translator.context.of_entries(entries))[len(known) :]
        by_row = dict(zip(with_text, contexts, strict=True))
        wanted = [number for number, row in enumerate(rows) if row.wanted]
        found: dict[int, Translation] = {}
        for start in range(0, len(wanted), CHUNK):
            chosen = wanted[start : start + CHUNK]
            answers = placeholders.translate(
                [rows[number].source for number in chosen],
                self.translator.ask,
                contexts=[by_row[number] for number in chosen],
                require=self.translator.ask_nbest,
                check_numbers=self.translator.settings.check_numbers,
                glossary=self.translator.settings.glossary,
            )
            found |= zip(chosen, answers, strict=True)
            progress(len(rows) * (start + len(chosen)) // len(wanted))
        return found
