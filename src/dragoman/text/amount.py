"""Amount of a text in words and tokens, estimated before there is a tokenizer."""

import regex

_IDEOGRAPHIC = r"\p{Han}\p{Hiragana}\p{Katakana}"
_ALPHABETIC = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
SPACELESS = f"[{_IDEOGRAPHIC}{_ALPHABETIC}]"
"""Pattern of a letter of the scripts that put no spaces between words."""
_LETTERS = ((regex.compile(f"[{_IDEOGRAPHIC}]"), 2.0), (regex.compile(f"[{_ALPHABETIC}]"), 4.0))
"""Letters without spaces between words, and how many a word has, about."""


def count_words(text: str) -> float:
    """Return about how many words a text has: those between spaces, and of scripts without spaces as many as their
    letters make."""
    words = 0.0
    if not text.isascii():
        for letter, length in _LETTERS:
            text, letters = letter.subn(" ", text)
            words += letters / length
    return len(text.split()) + words


def count_tokens(words: float, vocab: int, texts: int = 1) -> float:
    """Return about how many tokens these ``words`` of so many ``texts`` are, one more for the end of each: rare words
    are in pieces, fewer of them where the vocabulary is large. The figures are those of interface strings in four
    languages."""
    pieces = 1 + 0.9 * (4000 / vocab) ** 0.7
    return words * pieces + texts
