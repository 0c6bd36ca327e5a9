# ruff: noqa: RUF001  (full stops and quotation marks of many scripts)
"""Sentence splitting, for models trained on single sentences: they lose the second sentence of a line.

``sentencex`` finds the boundaries; it knows abbreviations and scripts of some 300 languages. A boundary is ignored
where the text after it may belong to the sentence before: inside a placeholder or a pair of tags, before a lower-case
letter or a digit, without a space where the script writes spaces, where one side has no word, and after a quotation in
a script without upper case.
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
"""Fraction of single sentences in the training text from which on ``auto`` splits."""
SAMPLE = 2000
"""Most training texts inspected to estimate that fraction."""
LANGUAGE = "en"
"""Rules for texts whose language is not known; those for the full stops of other scripts apply in any language."""


@dataclass(frozen=True)
class NoSplitting:
    """Leave a text in one piece."""

    def parts(self, text: str) -> list[TextSegment]:
        return [TextSegment(text, "")]


NO_SPLITTING = NoSplitting()


@dataclass(frozen=True)
class BySentences:
    """Split a text into sentences."""

    language: str = LANGUAGE
    """A language code, such as de or pt-BR."""

    def parts(self, text: str) -> list[TextSegment]:
        """Return the sentences of a text, each with the white space that follows it."""
        parts, start = [], 0
        for end in [*self.ends(text), len(text)]:
            sentence = text[start:end]
            parts.append(TextSegment(sentence.rstrip(), sentence[len(sentence.rstrip()) :]))
            start = end
        return parts

    def ends(self, text: str) -> list[int]:
        """Return where sentences end inside the text, the white space after each included."""
        import sentencex

        segment = sentencex.segment  # pyright: ignore[reportAttributeAccessIssue]  (the package has no stubs)
        found = list(segment(self.language.partition("-")[0], text))
        if len(found) < 2 or "".join(found) != text:
            return []
        placeholders, ends, start, at = find_placeholders(text), [], 0, 0
        for sentence in found[:-1]:
            at += len(sentence)
            if _divides(text[start:at], text[at:]) and not any(s < at < e for s, e in _spans(placeholders)):
                ends.append(at)
                start = at
        return ends


def _divides(before: str, after: str) -> bool:
    """Return whether a boundary separates two sentences, judged by the text on both sides of it."""
    first = next((c for c in after if c.isalnum()), "")
    apart = before[-1:].isspace() or before[-1:] in _FULL_STOPS or _another_quotation(before, after)
    words_on_both_sides = any(map(str.isalpha, before)) and first.isalpha()
    return apart and words_on_both_sides and not first.islower() and not _goes_on(before, after, first)


def _another_quotation(before: str, after: str) -> bool:
    """Return True where one quotation ends and another begins, as in two turns of a dialogue."""
    return before.rstrip()[-1:] in _CLOSING_MARKS and after[:1] in _OPENING_MARKS


def _goes_on(before: str, after: str, first: str) -> bool:
    """Return True where a sentence may go on: before a closing mark, and after one, as in 「行こう。」と言った.

    In scripts with upper case, the first letter after the mark tells; in others, a line end or another quotation does.
    """
    closed = before.rstrip()
    tells = first.upper() != first.lower() or "\n" in before[len(closed) :] or _another_quotation(before, after)
    return after[:1] in _CLOSING_BRACKETS or (closed[-1:] in _CLOSING_MARKS and not tells)


_FULL_STOPS = set("。！？｡．॥।۔؟")
"""Full stops that need no space after them."""
_CLOSING_BRACKETS = set("」』｣）】〕》〉)]”")
_CLOSING_MARKS = _CLOSING_BRACKETS | set("»›’\"'")
_OPENING_MARKS = set('「『｢“«‹„"')


def _spans(placeholders: Sequence[Placeholder]) -> Iterable[tuple[int, int]]:
    """Yield the spans of placeholders; a pair of tags is one span with all that is between them."""
    open_tags: list[int] = []
    for p in placeholders:
        if p.role is Role.OPENS:
            open_tags.append(p.start)
        start = open_tags.pop() if p.role is Role.CLOSES and open_tags else p.start
        yield start, p.end


# ---- counts of a run's training text ----------------------------------------------------------------


@config
class SentenceCount:
    """Number of training texts inspected, and of those that are a single sentence."""

    texts: int = 0
    single: int = 0

    @classmethod
    def of(cls, texts: Sequence[str], language: str | None) -> "SentenceCount":
        """Count in a sample of the texts, spread evenly."""
        sample = texts[:: max(1, len(texts) // SAMPLE)]
        splitter = BySentences(language or LANGUAGE)
        return cls(texts=len(sample), single=sum(not splitter.ends(text) for text in sample))

    @classmethod
    def read(cls, data: Path, language: str | None) -> "SentenceCount":
        """Return the count made when the run's text was prepared, or else count in its validation texts.

        Return an empty count where neither is there.
        """
        try:
            if (report := data / "report.json").exists() and "sentences" in (known := json.loads(report.read_bytes())):
                return from_dict(cls, known["sentences"])
            lines = (data / "valid.jsonl").read_bytes().splitlines()
            return cls.of([json.loads(line)["source"] for line in lines], language)
        except (OSError, ValueError, LookupError, TypeError, ConfigError):  # damaged or absent: nothing is known
            return cls()

    @property
    def mostly_single(self) -> bool:
        """True where most training texts were single sentences: the model may lose a second one."""
        return self.texts > 0 and self.single >= MOSTLY * self.texts
