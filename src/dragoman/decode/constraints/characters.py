"""UTF-8 read a byte at a time: which byte may follow, and whether a word goes on.

``Utf8State`` is the state after the bytes so far: the beginning of an unfinished character, or the group of the last
one. Two neighbours belong to one word if both are in the same group of letters. Bytes that occur in no training text
have no transition: invalid UTF-8, control characters, and white space other than single spaces (``clean.normalise``
leaves none of it).
"""

import unicodedata

import numpy as np

from dragoman.decode.constraints.utf8_bytes import SECOND, bytes_missing, may_follow

APART, ALPHABETIC, INDIC, SPACE = 0, 1, 2, 3
"""Groups of characters. Those in APART never join a word: punctuation, and letters of scripts that write no spaces
between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) or attach endings to them freely (Korean)."""

Utf8State = int | bytes
"""A group, or the bytes of an unfinished character; one representative for all that continue alike."""

_INVISIBLE = frozenset(
    chr(code).encode()
    for code in (*range(0x80, 0xA1), 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF)
)
_INSIDE_WORDS = frozenset(map(chr, (*range(0x55A, 0x560), 0x5F3, 0x5F4)))
"""Armenian marks over a syllable, and Hebrew marks of abbreviations."""
_PUNCTUATION = frozenset(
    character.encode()
    for character in map(chr, range(0xC0, 0x2000))
    if unicodedata.category(character)[0] == "P" and character not in _INSIDE_WORDS
)
"""Punctuation of scripts whose letters join words."""
_UNFINISHED = frozenset(char[:end] for char in _INVISIBLE | _PUNCTUATION for end in range(1, len(char)))
_STAND_IN = {(1, APART): b"\xe4\xb8", (1, ALPHABETIC): b"\xc3", (1, INDIC): b"\xe0\xa4", (2, APART): b"\xe4"}


def group(character: bytes) -> int:
    """Return the group of a character, or of all but the punctuation that these bytes begin."""
    if character in _PUNCTUATION:
        return APART
    lead, second = character[0], character[1] if len(character) > 1 else 0
    if lead < 0x80:
        return SPACE if lead == 0x20 else ALPHABETIC if chr(lead).isalnum() or lead == 0x5F else APART
    if 0xC3 <= lead <= 0xDF:
        return ALPHABETIC
    if lead == 0xE0:  # Thai and Lao lie among the scripts of India
        return APART if 0xB8 <= second <= 0xBB else INDIC
    if lead == 0xE1:
        return APART if second in (0x80, 0x81, 0x82, 0x9E, 0x9F) else ALPHABETIC  # Burmese, Khmer
    return APART


def read(before: Utf8State, byte: int) -> Utf8State | None:
    """Return the state after one more byte; None where the byte cannot follow."""
    if isinstance(before, bytes):
        return _go_on(before, byte)
    if byte < 0x80:
        invisible = byte < 0x20 or byte == 0x7F or (byte == 0x20 and before == SPACE)
        return None if invisible else group(bytes([byte]))
    return _representative(bytes([byte])) if may_follow(b"", byte) else None


def _go_on(before: bytes, byte: int) -> Utf8State | None:
    if not may_follow(before, byte):
        return None
    character = before + bytes([byte])
    if bytes_missing(character):
        return _representative(character)
    return None if character in _INVISIBLE else group(character)


def _representative(prefix: bytes) -> bytes:
    """Return the representative of all prefixes that continue as ``prefix`` does."""
    if prefix in _UNFINISHED or (len(prefix) == 1 and (prefix[0] in SECOND or prefix[0] == 0xE1)):
        return prefix
    return _STAND_IN.get((bytes_missing(prefix), group(prefix)), b"\xf1")


# ---- the automaton as a table -----------------------------------------------------------------------


def _tabulated() -> tuple[list[Utf8State], np.ndarray]:
    readings: list[Utf8State] = [APART, ALPHABETIC, INDIC, SPACE]
    numbers: dict[Utf8State | None, int] = {None: -1} | {reading: i for i, reading in enumerate(readings)}
    rows: list[list[int]] = []
    for before in readings:  # the list grows during the loop
        after = [read(before, byte) for byte in range(256)]
        for state in after:
            if state is not None and state not in numbers:
                numbers[state] = len(readings)
                readings.append(state)
        rows.append([numbers[state] for state in after])
    return readings, np.array(rows)


READINGS, NEXT = _tabulated()
"""All states, the groups first; and the index of the state after each byte, -1 where the byte cannot follow."""

LEADS = np.array([group(bytes([byte])) for byte in range(256)])
"""Group of a character by its first byte; for Thai and others that the first byte does not tell apart, the group of
their neighbours."""
