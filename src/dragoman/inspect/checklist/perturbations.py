"""Perturbations: small changes of a text that its answer must follow, or must not."""

import random
import re
from collections.abc import Callable

from dragoman.text.placeholders import find_placeholders

Perturbation = Callable[[str], str | None]
"""Returns the changed text; None where it does not apply."""
SEED = 1


def upper(text: str) -> str | None:
    """Return the text in capitals, except its placeholders."""
    return _changed(text, _outside_placeholders(text, str.upper))


def lower(text: str) -> str | None:
    """Return the text in small letters, except its placeholders."""
    return _changed(text, _outside_placeholders(text, str.lower))


def typos(text: str) -> str | None:
    """Swap two neighbouring letters inside one word of ten, in at least one; words of four letters or more."""
    draw = random.Random(f"{SEED} {text}")
    words = [match for match in re.finditer(r"[^\W\d_]{4,}", text) if not _in_placeholder(text, match)]
    chosen = draw.sample(words, max(1, round(len(words) / 10))) if words else []
    for match in chosen:
        places = [i for i in range(match.start() + 1, match.end() - 2) if text[i] != text[i + 1]]
        if places:
            i = draw.choice(places)
            text = text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text if chosen else None


def spacing(text: str) -> str | None:
    """Double the spaces, and add some around the text: white space that means nothing."""
    return f"  {text.replace(' ', '  ')} " if text.strip() else None


def odd_spaces(text: str) -> str | None:
    """Replace spaces by no-break spaces and tabs, as copying from a page or a table does."""
    if " " not in text.strip():
        return None
    first, *rest = text.split(" ")
    return first + "".join(("\u00a0" if i % 2 else "\t") + word for i, word in enumerate(rest, 1))


def final_mark(text: str) -> str | None:
    """Remove the final full stop, or add one."""
    if text.endswith(".") and not text.endswith(".."):
        return text[:-1]
    return text + "." if text[-1:].isalpha() else None


def other_numbers(text: str) -> str | None:
    """Replace each number by another one of as many digits; none where the text has no number of two digits or more."""
    draw = random.Random(f"{SEED} {text}")

    def replaced(match: re.Match[str]) -> str:
        if len(match[0]) < 2 or _in_placeholder(text, match):
            return match[0]
        low, high = 10 ** (len(match[0]) - 1), 10 ** len(match[0]) - 1
        return str(
            draw.choice([n for n in (draw.randint(low, high) for _ in range(8)) if str(n) != match[0]] or [high])
        )

    return _changed(text, re.sub(r"(?<![\w.,:])\d+(?![\w.,:]\w)", replaced, text))


def _changed(before: str, after: str) -> str | None:
    return after if after != before else None


def _outside_placeholders(text: str, change: Callable[[str], str]) -> str:
    parts, at = [], 0
    for found in find_placeholders(text):
        parts += [change(text[at : found.start]), found.text]
        at = found.end
    return "".join([*parts, change(text[at:])])


def _in_placeholder(text: str, match: re.Match[str]) -> bool:
    return any(found.start < match.end() and match.start() < found.end for found in find_placeholders(text))
