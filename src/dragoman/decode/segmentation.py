# ruff: noqa: RUF001  (punctuation of many scripts)
"""Segmentation of texts that are too long for a model: between sentences, then clauses, then words, and last inside a
word."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class TextSegment(NamedTuple):
    """A part of a text that is translated by itself."""

    text: str
    glue: str
    """Text between its translation and that of the next part."""
    split: bool = False
    """True where the text was too long: the segment is part of a sentence, or one of several."""


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
    """Return the parts of ``text``, none of them empty: the text if it fits, else its sentences or parts of them.

    A single character is returned whether it fits or not.
    """
    if fits(text):
        return [TextSegment(text, "")]
    return [part for sentence in sentences(text) for part in _halves(sentence, fits)]


_SENTENCE_END = re.compile(r"""[.!?…]+["'”’»)\]]*\s+ | [。！？｡؟۔।॥]+["'”’」』）]*\s*""", re.VERBOSE)
_BOUNDARIES = [re.compile(r"[,;:–—]\s+|[、，；：،؛]\s*"), re.compile(r"\s+")]  # between clauses, between words


def sentences(text: str) -> Iterator[TextSegment]:
    """Yield the sentences of a text, each with the punctuation that ends it."""
    start = 0
    for end in _ends(_SENTENCE_END, text):
        if not text[end].islower():  # "e.g. this" is one sentence
            yield TextSegment(text[start:end].strip(), " ")
            start = end
    yield TextSegment(text[start:], "")


def _halves(part: TextSegment, fits: Callable[[str], bool]) -> Iterator[TextSegment]:
    text, glue = part.text, part.glue
    if len(text) < 2 or fits(text):
        yield part
        return
    middle = len(text) // 2
    # the boundary nearest to the middle, of the best kind that there is
    boundaries = next(filter(None, (_ends(pattern, text) for pattern in _BOUNDARIES)), None)
    at = min(boundaries, key=lambda end: abs(end - middle)) if boundaries else middle
    yield from _halves(TextSegment(text[:at].strip(), " " if boundaries else ""), fits)
    yield from _halves(TextSegment(text[at:], glue), fits)


def _ends(pattern: re.Pattern[str], text: str) -> list[int]:
    """Return where matches end inside the text."""
    return [match.end() for match in pattern.finditer(text) if 0 < match.end() < len(text)]
