"""Text sentence by sentence, for models that have learnt from single sentences: they lose the second one of a line.

Boundaries are found by ``sentencex``, which knows abbreviations and scripts of some 300 languages. A boundary is passed
over where what follows it may belong to the sentence before: inside a placeholder or a pair of tags, before a small
letter or a digit, without a space between where the script writes them, and where one side has no word.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dragoman.config import config, from_dict
from dragoman.decode.segmentation import TextSegment
from dragoman.errors import ConfigError
from dragoman.text.placeholders import Placeholder, Role, find_placeholders

Splitting = Literal["auto", "on", "off"]
MOSTLY = 0.8
"""Share of single sentences in the training text from which on ``auto`` splits."""
SAMPLE = 2000
"""Training texts that are looked at to tell that share."""
LANGUAGE = "en"
"""The rules for texts whose language is not known; those for the full stops of other scripts hold in any language."""


@dataclass(frozen=True)
class NoSplitting:
    """Takes a text as one."""

    def parts(self, text: str) -> list[TextSegment]:
        return [TextSegment(text, "")]


NO_SPLITTING = NoSplitting()


@dataclass(frozen=True)
class BySentences:
    """Takes a text sentence by sentence."""

    language: str = LANGUAGE
    """A language code, such as de or pt-BR."""

    def parts(self, text: str) -> list[TextSegment]:
        """The sentences of a text, each with the white space that follows it."""
        parts, start = [], 0
        for end in [*self.ends(text), len(text)]:
            sentence = text[start:end]
            parts.append(TextSegment(sentence.rstrip(), sentence[len(sentence.rstrip()) :]))
            start = end
        return parts

    def ends(self, text: str) -> list[int]:
        """Where sentences end inside the text, the white space after each included."""
        import sentencex

        segment = sentencex.segment  # pyright: ignore[reportAttributeAccessIssue]  (the package has no stubs)
        found = list(segment(self.language.partition("-")[0], text))
        if len(found) < 2 or "".join(found) != text:
            return []
        placeholders, ends, start, at = find_placeholders(text), [], 0, 0
        for sentence in found[:-1]:
            at += len(sentence)
            if _divides(text[start:at], text[at:]) and not any(s < at < e for s, e in _wholes(placeholders)):
                ends.append(at)
                start = at
        return ends


def _divides(before: str, after: str) -> bool:
    """Return whether two stretches of text are a sentence each, by what stands on both sides of the boundary."""
    first = next((c for c in after if c.isalnum()), "")
    spaced = before[-1:].isspace() or before[-1:] in _FULL_STOPS
    return spaced and any(map(str.isalpha, before)) and first.isalpha() and not first.islower()


_FULL_STOPS = "。！？｡．॥।۔؟”』」）"  # noqa: RUF001


def _wholes(placeholders: Sequence[Placeholder]) -> Iterable[tuple[int, int]]:
    """Where placeholders begin and end, pairs of tags with all that is between them."""
    opened: list[int] = []
    for p in placeholders:
        if p.role is Role.OPENS:
            opened.append(p.start)
        start = opened.pop() if p.role is Role.CLOSES and opened else p.start
        yield start, p.end


# ---- what a run has learnt from ---------------------------------------------------------------------


@config
class SentenceCount:
    """How many of some training texts are a single sentence."""

    texts: int = 0
    single: int = 0

    @classmethod
    def of(cls, texts: Sequence[str], language: str | None) -> "SentenceCount":
        """Count in a sample of the texts, spread evenly."""
        some = texts[:: max(1, len(texts) // SAMPLE)]
        splitter = BySentences(language or LANGUAGE)
        return cls(texts=len(some), single=sum(not splitter.ends(text) for text in some))

    @classmethod
    def read(cls, data: Path, language: str | None) -> "SentenceCount":
        """Return what was counted when the run's text was prepared, or count in its validation texts; none where
        neither is there."""
        try:
            if (report := data / "report.json").exists() and "sentences" in (known := json.loads(report.read_bytes())):
                return from_dict(cls, known["sentences"])
            lines = (data / "valid.jsonl").read_bytes().splitlines()
            return cls.of([json.loads(line)["source"] for line in lines], language)
        except (OSError, ValueError, LookupError, TypeError, ConfigError):  # damaged or absent: nothing is known
            return cls()

    @property
    def mostly_single(self) -> bool:
        return self.texts > 0 and self.single >= MOSTLY * self.texts
