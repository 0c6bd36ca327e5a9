"""ICU messages inside texts: ``{n, plural, one {# file} other {# files}}`` has words that are not translated."""

import re
from collections.abc import Iterable

from dragoman.text.placeholders import find_placeholders

ICU_KEPT = (
    "holds an ICU message ({.., plural, ..} or the like), whose words are kept as they are and not translated: "
    "translate them by hand"
)


def holds_icu_message(text: str, codes: Iterable[str] = ()) -> bool:
    """Return whether a text has a plural, a selection or a choice with words in it."""
    return any(
        (found := _MESSAGE.match(p.text)) and any(map(str.isalpha, _words(p.text[found.end() :], found["kind"])))
        for p in find_placeholders(text, codes)
    )


def _words(branches: str, kind: str) -> str:
    """Return the text of the branches: in braces, or after ``#`` and ``<`` in a choice, without arguments."""
    if kind == "choice":
        return re.sub(r"\{[^{}]*\}", "", branches)
    inner = _ARGUMENT.sub("", re.sub(r"<[^<>]*>", "", branches))
    return "".join(re.findall(r"\{([^{}]*)", inner)) + "".join(re.findall(r"\}([^{}]*)(?=\})", inner))


_MESSAGE = re.compile(r"#?\{\s*[\w.\-]*\s*,\s*(?P<kind>plural|select|selectordinal|choice)\s*,")
_ARGUMENT = re.compile(r"\{\s*[\w.\-]*\s*(?:,\s*(?:number|date|time|spellout|ordinal|duration)\b[^{}]*)?\}(?=[^{}]*\})")
