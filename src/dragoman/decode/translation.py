"""Translations and their candidates: the results of a translator."""

import html
import math
from dataclasses import dataclass, replace

from dragoman.decode.brief import html_table, quoted
from dragoman.text.fuzzy import FuzzyMatch

TRUNCATED = "the translation was ended by force at the length limit"
"""Warning about a candidate that the length limit ended."""


def mean_probability(log_prob: float, tokens: int) -> float:
    """Return the geometric mean of the probabilities of so many tokens, which have this log-probability together."""
    return math.exp(min(0.0, log_prob) / max(1, tokens))


@dataclass(frozen=True)
class PartAnswer:
    """One input of the model and its answer, where several make up a translation."""

    question: str
    answer: str


@dataclass(frozen=True, repr=False)
class Candidate:
    """One translation of a text."""

    text: str
    score: float
    """Value that candidates are ranked by: the log-probability, corrected for length by the search."""
    log_prob: float
    """Natural logarithm of its probability."""
    tokens: tuple[int, ...]
    """Ids in the target vocabulary; each translated part ends with EOS."""
    token_log_probs: tuple[float, ...]
    truncated: bool
    """True where the length limit ended it; the model would have gone on."""
    alignment: tuple[tuple[int, int], ...] | None = None
    """Pairs (word of the source, word of ``text``), counted from 0, where words are separated by spaces. None where no
    alignment was wanted, and where the model did not translate the text itself: where it was put together around
    placeholders, or has no word."""
    confidence: float | None = None
    """Same as ``Translation.confidence``; None where it was not judged, and ``mean_probability`` is used instead."""
    parts: tuple[PartAnswer, ...] = ()
    """Inputs and answers of the model where the text was put together from several, in the order of ``tokens``, which
    spell these answers. Empty where the text is the model's answer to the source."""

    def __repr__(self) -> str:
        return f"Candidate({quoted(self.text)}, score={self.score:.3g})"

    def answers(self, source: str) -> "tuple[PartAnswer, ...]":
        """Return the answers that ``tokens`` spell, as a translation of ``source``; none if the model was not asked."""
        return self.parts or ((PartAnswer(source, self.text),) if self.tokens else ())

    @property
    def mean_probability(self) -> float:
        """Geometric mean of its tokens' probabilities; 1 for the empty translation of an empty text."""
        return mean_probability(self.log_prob, len(self.tokens))

    @property
    def estimated_confidence(self) -> float:
        """Its confidence, or ``mean_probability`` where it was not judged."""
        return self.mean_probability if self.confidence is None else self.confidence


@dataclass(frozen=True, repr=False)
class Translation:
    """A text with its translation: one or several candidates, warnings and a confidence."""

    row: int
    """Row number of the text, counted from 1."""
    source: str
    """Text as it was given."""
    candidates: tuple[Candidate, ...]
    """Candidates, best first, no two with the same text; at most as many as the search returns. Those of a text that
    was translated in parts are combinations of the best ones of its parts."""
    warnings: tuple[str, ...] = ()
    """Notes for the reader, each naming the row."""
    confidence: float = 1.0
    """Confidence in the best candidate, from 0 to 1. Where the run has been calibrated (``dragoman calibrate``) it is
    the probability that the translation is good. Else it is ``mean_probability``, which ranks sentences but promises no
    frequency."""
    matches: tuple[FuzzyMatch, ...] = ()
    """Matches of a translation memory that the model read with the text or its parts; or the one that is the
    translation, with similarity 1 and no tokens in the candidate."""

    def __repr__(self) -> str:
        more = f", {len(self.candidates)} candidates" if len(self.candidates) > 1 else ""
        return f"Translation({quoted(self.source)} -> {quoted(self.text)}, confidence={self.confidence:.2f}{more})"

    def _repr_html_(self) -> str:
        head = ("source", "translation", "score", "confidence")
        sure = [self.confidence, *(candidate.estimated_confidence for candidate in self.candidates[1:])]
        sources = [self.source, *[""] * (len(self.candidates) - 1)]
        rows = zip(sources, self.candidates, sure, strict=True)
        notes = "".join(f"<p>{html.escape(warning)}</p>" for warning in self.warnings)
        return html_table(head, ((s, c.text, f"{c.score:.3f}", f"{p:.2f}") for s, c, p in rows)) + notes

    def choosing(self, candidates: tuple[Candidate, ...]) -> "Translation":
        """Return the translation with these of its candidates; confidence and warnings are those of the first one."""
        best = candidates[0]
        if best == self.candidates[0]:
            return replace(self, candidates=candidates)
        warnings = [warning for warning in self.warnings if not warning.endswith(TRUNCATED)]
        warnings += [f"row {self.row}: {TRUNCATED}"] * best.truncated
        return replace(self, candidates=candidates, warnings=tuple(warnings), confidence=best.estimated_confidence)

    @property
    def text(self) -> str:
        """Text of the best candidate."""
        return self.candidates[0].text

    @property
    def score(self) -> float:
        """Score of the best candidate."""
        return self.candidates[0].score
