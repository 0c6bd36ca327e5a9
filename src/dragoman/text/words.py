"""Words of a text in any script.

Python's ``re`` takes vowel signs and other marks for no part of a word, and so divides each word of an Indic script.
"""

import regex

LETTER = r"[\w\p{N}]"
"""Expression of ``regex`` for what words are made of: letters, marks, numbers, joiners and underscores."""
WORD = regex.compile(rf"{LETTER}+")
WORD_OR_SIGN = regex.compile(rf"{LETTER}+|\S")
