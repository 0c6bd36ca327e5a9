# ruff: noqa: RUF001  (punctuation of many scripts)
"""Cutting a text that is too long for a model, where it hurts least: between sentences, clauses, words, and only then
inside a word."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class TextSegment(NamedTuple):
    text: str
    glue: str
    """What stands between its translation and that of the next part."""
    cut: bool = False
    """It is less than a sentence, or several, because the text was too long."""


def glue_after(part: TextSegment, translation: str) -> str:
    """Return the white space between the translation of ``part`` and the next one.

    It is that of the source, but between sentences of two scripts of which only one writes a space there.
    """
    if not translation:
        return part.glue
    without = _WITHOUT_SPACE.search(translation) is not None
    if part.glue:
        return "" if without else part.glue
    return "" if without or _WITHOUT_SPACE.search(part.text) is None else " "


_WITHOUT_SPACE = re.compile(r"""[。！？｡，、；：]["'”’」』）]*$|[」』）]$""")
"""The end of a text after which its script writes no space."""


def segment(text: str, fits: Callable[[str], bool]) -> list[TextSegment]:
    """The parts of ``text``, none of them empty: the whole if it fits, else its sentences, and what they need.

    A single character is returned whether it fits or not.
    """
    if fits(text):
        return [TextSegment(text, "")]
    return [part for sentence in sentences(text) for part in _halves(sentence, fits)]


_SENTENCE_END = re.compile(r"""[.!?…]+["'”’»)\]]*\s+ | [。！？｡؟۔।॥]+["'”’」』）]*\s*""", re.VERBOSE)
_CUTS = [re.compile(r"[,;:–—]\s+|[、，；：،؛]\s*"), re.compile(r"\s+")]  # between clauses, between words


def sentences(text: str) -> Iterator[TextSegment]:
    """The sentences of a text, the last with what follows it."""
    start = 0
    for end in _ends(_SENTENCE_END, text):
        if not text[end].islower():  # "e.g. this" goes on
            yield TextSegment(text[start:end].strip(), " ")
            start = end
    yield TextSegment(text[start:], "")


def _halves(part: TextSegment, fits: Callable[[str], bool]) -> Iterator[TextSegment]:
    text, glue = part.text, part.glue
    if len(text) < 2 or fits(text):
        yield part
        return
    middle = len(text) // 2
    cuts = next(filter(None, (_ends(cut, text) for cut in _CUTS)), None)
    at = min(cuts, key=lambda end: abs(end - middle)) if cuts else middle
    yield from _halves(TextSegment(text[:at].strip(), " " if cuts else ""), fits)
    yield from _halves(TextSegment(text[at:], glue), fits)


def _ends(pattern: re.Pattern[str], text: str) -> list[int]:
    """Where matches end inside the text."""
    return [match.end() for match in pattern.finditer(text) if 0 < match.end() < len(text)]
