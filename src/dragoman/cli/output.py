"""Output of translations: one line each, in columns separated by tabs, or as JSON."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.translation import Candidate, Translation


class OutputFormat(StrEnum):
    """Output format of a command."""

    text = "text"
    json = "json"


@dataclass(frozen=True)
class OutputLayout:
    """Columns written for each translation besides its text."""

    format: OutputFormat = OutputFormat.text
    nbest: int = 1
    """Number of translations per source; with more than 1 each line begins with its row."""
    scores: bool = False
    alignments: bool = False
    flag_below: float | None = None
    """Confidence below which a translation is marked for review; one with a warning is marked too."""

    def lines(self, translation: "Translation") -> Iterator[str]:
        """Yield the lines of a translation. Text has the requested columns in this order: row, text, score,
        log-probability, alignment, confidence, and ``review`` or nothing."""
        if self.format is OutputFormat.json:
            yield json_text(self.record(translation))
        else:
            yield from ("\t".join(self.columns(translation, candidate)) for candidate in translation.candidates)

    def columns(self, translation: "Translation", candidate: "Candidate") -> Iterator[str]:
        """Yield the columns of one candidate."""
        several = self.nbest > 1
        if several:
            yield str(translation.row)
        yield candidate.text
        if self.scores:
            yield from (f"{candidate.score:.6f}", f"{candidate.log_prob:.6f}")
        if self.alignments:
            yield " ".join(f"{source}-{target}" for source, target in candidate.alignment or ())
        if self.flag_below is not None:
            best = candidate is translation.candidates[0]
            yield f"{translation.confidence:.4f}" if best else ""
            yield "review" if best and self.flagged(translation) else ""

    def record(self, translation: "Translation") -> dict[str, Any]:
        """Return the JSON object of a translation."""
        fields = dataclasses.asdict(translation) | {"matches": [match._asdict() for match in translation.matches]}
        review = {} if self.flag_below is None else {"review": self.flagged(translation)}
        first = {"row": translation.row, "source": translation.source, "text": translation.text}
        return first | {"confidence": translation.confidence} | review | fields

    def flagged(self, translation: "Translation") -> bool:
        """Return True if a translation is marked for review."""
        return self.flag_below is not None and (self.is_unsure(translation) or bool(translation.warnings))

    def is_unsure(self, translation: "Translation") -> bool:
        """Return True if a translation's confidence is below ``flag_below``."""
        return self.flag_below is not None and translation.confidence < self.flag_below

    def remarks(self, translation: "Translation") -> Iterator[str]:
        """Yield notes for the reader besides the text."""
        yield from translation.warnings
        if self.is_unsure(translation):
            yield (
                f"row {translation.row}: marked for review: confidence {translation.confidence:.2f} "
                f"is below {self.flag_below:g}"
            )


def write_file(results: "Iterable[Translation]", path: Path, layout: OutputLayout) -> None:
    """Write translations to a file; see ``write``."""
    from dragoman.text.compressed import create_text

    with create_text(path) as file:
        write(results, file, layout)


def write(results: "Iterable[Translation]", file: TextIO, layout: OutputLayout) -> None:
    """Write translations in ``layout``; notes go to standard error."""
    for result in results:
        for line in layout.lines(result):
            print(line, file=file, flush=file is sys.stdout)
        for remark in layout.remarks(result):
            print(f"dragoman: {remark}", file=sys.stderr)
