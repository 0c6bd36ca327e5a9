"""Checks of translations that need no model: placeholders, numbers, punctuation, markup, access keys, length.

Each check gets a source and its translation, and says what is wrong in one line. They are those that translation
platforms such as Weblate run; a translation may be right all the same.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from xml.parsers import expat

from dragoman.text.accelerators import find_accelerator
from dragoman.text.check_names import CHECK_NAMES
from dragoman.text.document import FillableDocument, Slot, SlotRule
from dragoman.text.invariants import find_changes, without_placeholders
from dragoman.text.placeholders import Role, find_placeholders, placeholders_preserved, without_codes


class CheckFinding(NamedTuple):
    """Something that may be wrong with a translation."""

    place: str
    check: str
    message: str
    source: str
    translation: str


@dataclass(frozen=True)
class Translated:
    """Source text and its translation."""

    place: str
    source: str
    translation: str
    codes: tuple[str, ...] = ()
    limit: int | None = None
    rules: tuple[SlotRule, ...] = ()


def check_placeholders(pair: Translated) -> str | None:
    """Compare placeholders and tags."""
    source, target = (find_placeholders(text, pair.codes) for text in (pair.source, pair.translation))
    here, there = (Counter(p.text for p in found) for found in (source, target))
    if missing := list((here - there).elements()):
        return f"without {', '.join(missing[:5])}"
    if added := list((there - here).elements()):
        return f"with {', '.join(added[:5])}, which the source does not have"
    return None if placeholders_preserved(source, target) else "its tags are not nested as those of the source"


def check_numbers(pair: Translated) -> str | None:
    """Compare numbers and signs."""
    texts = (pair.source, pair.translation)
    changes = find_changes(*(without_placeholders(text, find_placeholders(text, pair.codes)) for text in texts))
    return str(changes) if changes else None


def check_end(pair: Translated) -> str | None:
    """Compare the punctuation at the end."""
    here, there = _end(pair.source), _end(pair.translation)
    if here == there:
        return None
    return f"ends in {there or 'no mark'}, the source in {here or 'no mark'}"


def check_space(pair: Translated) -> str | None:
    """Compare white space at the ends, and line ends."""
    for name, take in _SPACES.items():
        if take(pair.source) != take(pair.translation):
            return f"differs in {name}"
    return None


def check_length(pair: Translated) -> str | None:
    """Compare the length, codes left out, with the limit that the file states."""
    if broken := _broken_rule(pair, "length"):
        return broken
    text = without_codes(pair.translation, pair.codes)
    if pair.limit is None or len(text) <= pair.limit:
        return None
    return f"has {len(text)} characters, {pair.limit} are allowed"


def check_rules(pair: Translated) -> str | None:
    """Apply the validation rules of the file."""
    return _broken_rule(pair, "validation")


def _broken_rule(pair: Translated, check: str) -> str | None:
    rules = (rule for rule in pair.rules if rule.check == check)
    return next((found for rule in rules if (found := rule.problem(pair.source, pair.translation, pair.codes))), None)


def check_markup(pair: Translated) -> str | None:
    """Parse as XML a translation whose source is well-formed with tags in it."""
    tags = [p for p in find_placeholders(pair.source) if p.role in (Role.OPENS, Role.CLOSES) and p.text[0] == "<"]
    if not tags or not _is_xml(pair.source) or _is_xml(pair.translation):
        return None
    return "is not well-formed XML, as the source is"


def check_accelerator(pair: Translated) -> str | None:
    """Compare access keys, the letters after ``&`` or ``_``."""
    here, there = (find_accelerator(text, pair.codes) for text in (pair.source, pair.translation))
    if here and not there:
        return f"without the access key {here.mark}{here.key}"
    if there and not here and there.mark in "&_" and there.mark not in pair.source:
        return f"with an access key {there.mark}{there.key}, which the source does not have"
    return None


Check = Callable[[Translated], str | None]
_IN_ORDER: tuple[Check, ...] = (
    check_placeholders,
    check_numbers,
    check_end,
    check_space,
    check_length,
    check_markup,
    check_accelerator,
    check_rules,
)
CHECKS: dict[str, Check] = dict(zip(CHECK_NAMES, _IN_ORDER, strict=True))


def find_problems(pair: Translated) -> Iterator[CheckFinding]:
    """Yield what the checks find in one translation. Where a placeholder is wrong, its markup is not reported twice."""
    found = {name: message for name, check in CHECKS.items() if (message := check(pair))}
    if "placeholders" in found:
        found.pop("markup", None)
    for name, message in found.items():
        yield CheckFinding(pair.place, name, message, pair.source, pair.translation)


def translations_in(document: FillableDocument) -> Iterator[Translated]:
    """Yield the translations of a file that holds both languages."""
    for slot in document.slots:
        if slot.filled and slot.translation:
            yield Translated(slot.place, slot.text, slot.translation, slot.codes, slot.limit, slot.rules)


def translations_between(source: FillableDocument, target: FillableDocument) -> Iterator[Translated]:
    """Yield the translations in a file of the target language, by the keys of one in the source language."""
    there: dict[str, Slot] = {slot.key: slot for slot in target.slots}
    for slot in source.slots:
        if (found := there.get(slot.key)) is not None:
            codes = tuple(dict.fromkeys((*slot.codes, *found.codes)))
            yield Translated(found.place, slot.text, found.text, codes, slot.limit)


_MARKS = {
    **dict.fromkeys(".。।։።", "."),  # noqa: RUF001
    **dict.fromkeys("?？؟;", "?"),  # noqa: RUF001
    **dict.fromkeys("!！", "!"),  # noqa: RUF001
    **dict.fromkeys(":：", ":"),  # noqa: RUF001
    "…": "...",
}
_SPACES: dict[str, Callable[[str], object]] = {
    "white space at its beginning": lambda text: text[: len(text) - len(text.lstrip())],
    "white space at its end": lambda text: text[len(text.rstrip()) :],
    "the number of its lines": lambda text: text.count("\n"),
}


def _end(text: str) -> str:
    """Return the mark that a text ends in, the same one for all scripts; empty if it ends in none of these."""
    bare = re.sub(r"""[\s)\]}"'”’»>]+$""", "", text)  # noqa: RUF001
    if bare.endswith("..."):
        return "..."
    if re.search(r"\([&_]\w\)$", bare + ")"):
        return ""
    return _MARKS.get(bare[-1:], "")


def _is_xml(text: str) -> bool:
    parser = expat.ParserCreate()
    try:
        parser.Parse(f"<text>{re.sub(r'&(?!#?[A-Za-z0-9]+;)', '&amp;', text)}</text>", True)
    except expat.ExpatError as error:
        return error.code in (expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY],)
    return True
