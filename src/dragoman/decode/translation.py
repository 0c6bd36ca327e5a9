"""What comes out of a translator."""

import math
from dataclasses import dataclass, replace

TRUNCATED = "the translation was ended by force at the length limit"
"""What the warning about a candidate that was cut says."""


@dataclass(frozen=True)
class PartAnswer:
    """One question to the model and its answer, where several make up a translation."""

    question: str
    answer: str


@dataclass(frozen=True)
class Candidate:
    """One translation of a text."""

    text: str
    score: float
    """What candidates are ranked by: the log-probability, corrected for length as the search was told to."""
    log_prob: float
    """Natural logarithm of its probability."""
    tokens: tuple[int, ...]
    """Ids in the target vocabulary; each translated part ends with EOS."""
    token_log_probs: tuple[float, ...]
    truncated: bool
    """The length limit ended it; the model would have gone on."""
    alignment: tuple[tuple[int, int], ...] | None = None
    """(word of the source, word of ``text``), counted from 0, words being what stands between spaces; None where it was
    not asked for, or where the text was put together around placeholders."""
    confidence: float | None = None
    """As ``Translation.confidence``; None where it was not judged, so that ``mean_probability`` stands for it."""
    parts: tuple[PartAnswer, ...] = ()
    """Where the text was put together: what the model was asked and answered, in the order of ``tokens``, which spell
    these answers. Empty where the text is the model's answer to the source."""

    def answers(self, source: str) -> "tuple[PartAnswer, ...]":
        """Return the answers that ``tokens`` spell, as a translation of ``source``; none if the model was not asked."""
        return self.parts or ((PartAnswer(source, self.text),) if self.tokens else ())

    @property
    def mean_probability(self) -> float:
        """The geometric mean of its tokens' probabilities; 1 for the empty translation of an empty text."""
        return math.exp(min(0.0, self.log_prob) / max(1, len(self.tokens)))


@dataclass(frozen=True)
class Translation:
    row: int
    """Number of the text, counted from 1."""
    source: str
    """The text as it was given."""
    candidates: tuple[Candidate, ...]
    """Best first, no two with the same text; at most as many as the search was asked for. Those of a text that was
    translated in parts are put together of the best ones of its parts."""
    warnings: tuple[str, ...] = ()
    """What its reader should know, each naming the row."""
    confidence: float = 1.0
    """0 to 1, of the best candidate: how likely it is to be good where the run has been calibrated (``dragoman
    calibrate``); else its ``mean_probability``, which ranks sentences but promises no frequency."""

    def choosing(self, candidates: tuple[Candidate, ...]) -> "Translation":
        """Return the same with some of its candidates; confidence and warnings are those of the first one."""
        best = candidates[0]
        if best == self.candidates[0]:
            return replace(self, candidates=candidates)
        warnings = [warning for warning in self.warnings if not warning.endswith(TRUNCATED)]
        warnings += [f"row {self.row}: {TRUNCATED}"] * best.truncated
        confidence = best.mean_probability if best.confidence is None else best.confidence
        return replace(self, candidates=candidates, warnings=tuple(warnings), confidence=confidence)

    @property
    def text(self) -> str:
        return self.candidates[0].text

    @property
    def score(self) -> float:
        return self.candidates[0].score
