"""Lines of text to translate, and translations of them that are combined from several answers."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from dragoman.decode.documents.icu import ICU_KEPT
from dragoman.decode.request import Request
from dragoman.decode.translation import Candidate, Translation
from dragoman.text.invariants import UNCHANGED, Changes, find_changes, without_placeholders
from dragoman.text.lines import PrecedingSentences
from dragoman.text.placeholders import Placeholder, find_placeholders, placeholders_preserved

SourceQuestion = str | Request
"""A text to translate; a request where it has a context."""
Ask = Callable[[list[SourceQuestion]], list[Translation]]
"""Translates texts; returns as many translations, in their order."""
Require = Callable[[list[SourceQuestion], list[list[str]]], list[Translation]]
"""Translates texts so that each translation contains the strings required of it."""

UNTOUCHED = "left as it was, in part or whole, since its translation would not keep a placeholder: translate it by hand"
EMPTY = "left as it was, in part or whole, since its translation was empty: translate it by hand"
ADDED = "left as it was, since its translation had a placeholder or a number that is not there: translate it by hand"
LEFT_ALONE = (UNTOUCHED, EMPTY, ADDED, ICU_KEPT)
"""Ends of the warnings about texts that stayed, in part or whole, as they were."""


@dataclass(frozen=True)
class SourceLine:
    """A stretch of text without line ends, tabs and outer white space."""

    text: str
    codes: tuple[str, ...]
    context: PrecedingSentences = ()
    """Texts before it in its document."""
    checked: bool = True
    """True where its numbers and signs must also survive."""
    bound: bool = False
    """A glossary has a translation for something in it, so that it is no line without words."""

    def __bool__(self) -> bool:
        return bool(self.text)

    @cached_property
    def placeholders(self) -> list[Placeholder]:
        """Placeholders of the line."""
        return find_placeholders(self.text, self.codes)

    def is_kept_in(self, translation: str) -> bool:
        """Return whether a translation has the same placeholders."""
        return placeholders_preserved(self.placeholders, find_placeholders(translation, self.codes))

    def changes_in(self, translation: str) -> Changes:
        """Return the numbers and signs that differ between the line and a translation with its placeholders."""
        return find_changes(self.text, translation) if self.checked else UNCHANGED

    @cached_property
    def words(self) -> str:
        """The text without its placeholders."""
        return without_placeholders(self.text, self.placeholders)


def combine(
    row: int, source: str, text: str, parts: Sequence[Translation], *warnings: str, untranslated: bool = False
) -> Translation:
    """Return one translation made of several, with the lowest of their confidences.

    Args:
        parts: exactly those that ``text`` is made of.
        untranslated: words of the source remain in ``text``, so that its confidence is 0.
    """
    best = [part.candidates[0] for part in parts]
    confidence = 0.0 if untranslated else min((p.confidence for p in parts), default=1.0)
    candidate = Candidate(
        text=text,
        score=min((c.score for c in best), default=0.0),
        log_prob=sum((c.log_prob for c in best), 0.0),
        tokens=tuple(chain.from_iterable(c.tokens for c in best)),
        token_log_probs=tuple(chain.from_iterable(c.token_log_probs for c in best)),
        truncated=any(c.truncated for c in best),
        confidence=confidence,
        parts=tuple(chain.from_iterable(c.answers(p.source) for p, c in zip(parts, best, strict=True))),
    )
    found = dict.fromkeys(
        about(row, warning) for warning in (*chain.from_iterable(p.warnings for p in parts), *warnings)
    )
    matches = tuple(dict.fromkeys(chain.from_iterable(part.matches for part in parts)))
    return Translation(row, source, (candidate,), tuple(found), confidence, matches)


def is_left_alone(translation: Translation) -> bool:
    """Return whether a text came out as it went in because nothing in it could be translated."""
    return translation.text == translation.source and any(w.endswith(LEFT_ALONE) for w in translation.warnings)


def about(row: int, warning: str) -> str:
    """Return a warning about a question as one about row ``row``, which the question came from."""
    return f"row {row}: " + re.sub(r"^row \d+: ", "", warning)


def with_warning(answer: Translation, warning: str) -> Translation:
    """Return the translation with one more warning."""
    warnings = dict.fromkeys((*answer.warnings, about(answer.row, warning)))
    return dataclasses.replace(answer, warnings=tuple(warnings))
