"""Safety page applied to lines: as many lines come out as went in, and those withheld hold the text for the user."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from dragoman.decode.documents.line_translation import LineTranslator
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translation import Candidate, Translation
from dragoman.serve.safety.page import Decision, SafetyPage
from dragoman.text.lines import on_one_line

DONE = {"refuse": "refused", "hand_over": "handed over", "degrade": "translated by a safer search"}


class GuardedLines:
    """Translator of lines behind a safety page.

    Every line is translated, those that are refused too, so that what follows it in its document has its context.
    """

    def __init__(self, lines: LineTranslator, page: SafetyPage):
        self.lines, self.page = lines, page

    def stream(self, lines: Iterable[str], **options: Any) -> Iterator[Translation]:
        """Yield a translation of each line; the options are those of ``LineTranslator.stream``."""
        for translation in self.lines.stream(lines, **options):
            yield self._guarded(translation)

    def _guarded(self, found: Translation) -> Translation:
        def ask(search: SearchConfig | None) -> Translation:
            return found if search is None else self._again(found, search)

        answer, decision = self.page.guard(found.source, ask)
        if answer is None:
            assert decision is not None, "only a decision withholds"
            return _withheld(found, decision)
        allowed = tuple(c for c in answer.candidates[1:] if self.page.permits(c.text))
        answer = replace(answer, candidates=(answer.candidates[0], *allowed))
        return replace(answer, warnings=(*answer.warnings, _note(found.row, decision))) if decision else answer

    def _again(self, found: Translation, search: SearchConfig) -> Translation:
        safer = LineTranslator(replace(self.lines.settings, search=search, prefix_column=False), self.lines.translator)
        return next(safer.stream([found.source], first_row=found.row))


def _withheld(found: Translation, decision: Decision) -> Translation:
    text = on_one_line(decision.text)
    candidate = Candidate(text, 0.0, 0.0, (), (), truncated=False, confidence=0.0)
    return Translation(found.row, found.source, (candidate,), (_note(found.row, decision),), confidence=0.0)


def _note(row: int, decision: Decision) -> str:
    return f"row {row}: {DONE[decision.action]} (safety rule {decision.rule!r})"
