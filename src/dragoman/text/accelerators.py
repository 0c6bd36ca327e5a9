"""Access keys of menus and buttons: the letter after ``&`` (Windows, Qt) or ``_`` (GTK).

The mark sits in the middle of a word and would spoil its translation. It is removed before translation and restored
afterwards before a letter of the translation: the first word that begins with the same letter, else that letter
anywhere, else the first letter. In a script without lower case it follows in brackets, as is usual there: ``文件(&F)``.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from dragoman.text.placeholders import find_placeholders


class Accelerator(NamedTuple):
    """Access key of a text and the text without its mark."""

    mark: str
    key: str
    """Letter after the mark."""
    bare: str
    """Text without the mark."""


def find_accelerator(text: str, codes: Iterable[str] = ()) -> Accelerator | None:
    """Return the only accelerator of a text; None where there is none, or more than one mark.

    R&D, AT&T, snake_case and _private in a sentence are not accelerators, and neither is a mark inside a placeholder.
    """
    if "&" not in text and "_" not in text:
        return None
    taken = [range(p.start, p.end) for p in find_placeholders(text, codes)]
    for mark, pattern in _MARKS.items():
        at = [i for i, char in enumerate(text) if char == mark and not any(i in span for span in taken)]
        if len(at) == 1 and (found := pattern(text, at[0])):
            return Accelerator(mark, text[at[0] + 1], (text[: found.start()] + text[found.end() :]).strip())
    return None


def restore_accelerator(accelerator: Accelerator, text: str, codes: Iterable[str] = ()) -> str:
    """Return a translation of ``bare`` with the mark restored."""
    mark, key = accelerator.mark, accelerator.key.casefold()
    taken = [range(p.start, p.end) for p in find_placeholders(text, codes)]
    letters = [i for i, char in enumerate(text) if char.isalnum() and not any(i in span for span in taken)]
    same = [i for i in letters if text[i].casefold() == key]
    cased = [i for i in letters if text[i].isupper() or text[i].islower()]
    first = [i for i in same if i == 0 or not text[i - 1].isalnum()] or same or cased
    if first:
        return text[: first[0]] + mark + text[first[0] :]
    end = len(text.rstrip(".…:： "))  # noqa: RUF001
    return f"{text[:end]}({mark}{key.upper()}){text[end:]}" if letters else text


_BRACKETED = re.compile(r"\s*\([&_]\w\)")


def _ampersand(text: str, at: int) -> re.Match[str] | None:
    """Match the mark, or the bracket around it."""
    before, after = text[:at], text[at + 1 : at + 2]
    if not after.isalnum():
        return None
    if before[-1:].isalnum() and not (after.islower() and before[-1:].isalpha() and len(text.split()) <= 4):
        return None
    return _mark(text, at)


def _underscore(text: str, at: int) -> re.Match[str] | None:
    before, after, words = text[:at], text[at + 1 : at + 2], len(text.split())
    if not after.isalpha() or words > 5:
        return None
    within = before[-1:].isalnum()
    if within and not (after.islower() and re.search(r"(?:^|\s)[A-Z][a-z]?$", before)):
        return None
    if not within and after.islower() and words > 2:
        return None
    return _mark(text, at)


def _mark(text: str, at: int) -> re.Match[str] | None:
    for match in _BRACKETED.finditer(text):
        if match.start() < at < match.end() and any(map(str.isalnum, text[: match.start()])):
            return match
    return re.compile(r"[&_]").match(text, at)


_MARKS = {"&": _ampersand, "_": _underscore}
