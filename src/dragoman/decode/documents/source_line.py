"""Lines of text to translate, and translations of them that are put together from several answers."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from dragoman.decode.documents.icu import ICU_KEPT
from dragoman.decode.request import Request
from dragoman.decode.translation import Candidate, Translation
from dragoman.text.invariants import UNCHANGED, Changes, find_changes, without_placeholders
from dragoman.text.lines import PrecedingSentences
from dragoman.text.placeholders import Placeholder, find_placeholders, placeholders_preserved

SourceQuestion = str | Request
"""A text to be translated; a request, where it has a context."""
Ask = Callable[[list[SourceQuestion]], list[Translation]]
"""Translates texts: as many, in their order."""
Require = Callable[[list[SourceQuestion], list[list[str]]], list[Translation]]
"""Translates texts so that each translation has the strings that are required of it."""

UNTOUCHED = "left as it was, in part or whole, since its translation would not keep a placeholder: translate it by hand"


@dataclass(frozen=True)
class SourceLine:
    """A stretch of text without line ends, tabs and outer white space."""

    text: str
    codes: tuple[str, ...]
    context: PrecedingSentences = ()
    """What stands before it in its document."""
    checked: bool = True
    """Whether its numbers and signs are to come out as well."""
    bound: bool = False
    """A glossary has a translation for something in it, so that it is no line without words."""

    def __bool__(self) -> bool:
        return bool(self.text)

    @cached_property
    def placeholders(self) -> list[Placeholder]:
        return find_placeholders(self.text, self.codes)

    def is_kept_in(self, translation: str) -> bool:
        return placeholders_preserved(self.placeholders, find_placeholders(translation, self.codes))

    def changes_in(self, translation: str) -> Changes:
        """The numbers and signs that a translation, which has the placeholders, does not share with it."""
        return find_changes(self.text, translation) if self.checked else UNCHANGED

    @cached_property
    def words(self) -> str:
        """The text without its placeholders."""
        return without_placeholders(self.text, self.placeholders)


def in_one(
    row: int, source: str, text: str, parts: Sequence[Translation], *warnings: str, untranslated: bool = False
) -> Translation:
    """One translation that is made of several; as trustworthy as the worst of them.

    Args:
        parts: those that ``text`` is made of, and no others.
        untranslated: words of the source stand in ``text`` as they were, so that it can not be trusted at all.
    """
    best = [part.candidates[0] for part in parts]
    confidence = 0.0 if untranslated else min((p.confidence for p in parts), default=1.0)
    whole = Candidate(
        text=text,
        score=min((c.score for c in best), default=0.0),
        log_prob=sum((c.log_prob for c in best), 0.0),
        tokens=sum((c.tokens for c in best), ()),
        token_log_probs=sum((c.token_log_probs for c in best), ()),
        truncated=any(c.truncated for c in best),
        confidence=confidence,
        parts=tuple(itertools.chain(*(c.answers(p.source) for p, c in zip(parts, best, strict=True)))),
    )
    told = dict.fromkeys(about(row, warning) for warning in (*itertools.chain(*(p.warnings for p in parts)), *warnings))
    return Translation(row, source, (whole,), tuple(told), confidence)


def is_left_alone(translation: Translation) -> bool:
    """Return whether a text came out as it went in because nothing in it could be translated."""
    return translation.text == translation.source and any(
        w.endswith((UNTOUCHED, ICU_KEPT)) for w in translation.warnings
    )


def about(row: int, warning: str) -> str:
    """A warning about a question, as one about the text that it came from."""
    return f"row {row}: " + re.sub(r"^row \d+: ", "", warning)


def warned(answer: Translation, warning: str) -> Translation:
    """The same translation with one more warning."""
    told = dict.fromkeys((*answer.warnings, about(answer.row, warning)))
    return dataclasses.replace(answer, warnings=tuple(told))
