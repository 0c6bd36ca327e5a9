"""Words are whole in every script, wherever a text is taken apart into words."""

import pytest

from dragoman.decode.documents.placeholder_strategies import SegmentBySegment
from dragoman.decode.documents.source_line import SourceLine
from dragoman.evaluate.baseline import BagOfWords
from dragoman.inspect.failures import words_of_text
from dragoman.text.inflections import inflected_words
from dragoman.text.words import WORD, WORD_OR_SIGN

TEXTS = [
    "नमस्ते दुनिया",
    "বাংলা ভাষা",
    "தமிழ் மொழி",
    "שָׁלוֹם עוֹלָם",
    "كِتَابٌ جَدِيدٌ",
    "m\N{COMBINING TILDE}a e",
    "naïve café",
]


@pytest.mark.parametrize("text", [*TEXTS, "5 m²"])
def test_the_words_of_a_text_are_what_stands_between_its_spaces(text):
    assert WORD.findall(text) == WORD_OR_SIGN.findall(text) == text.split()
    assert words_of_text(text) == text.casefold().split()
    signs = f"«{text}»!"
    assert WORD.findall(signs) == text.split() and WORD_OR_SIGN.findall(signs) == ["«", *text.split(), "»", "!"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_stretch_between_placeholders_keeps_the_marks_at_its_ends(text):
    assert SegmentBySegment().questions(SourceLine(f"{text} %s {text}.", ())) == [text, text]


def test_the_baseline_tells_words_apart_that_differ_in_a_mark():
    learned = BagOfWords(["यह कि है", "यह का है"] * 8, ["a", "b"] * 8, ("a", "b"))
    assert [word for word in ("कि", "का", "क") if word in learned.index] == ["कि", "का"]


def test_words_with_marks_inflect():
    pytest.importorskip("simplemma")
    assert "लड़का" in inflected_words(["लड़के"], "hi")["लड़के"]
