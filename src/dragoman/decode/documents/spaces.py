"""No-break spaces, which models do not know: they are restored beside the words that they join."""

import re

NO_BREAK = "\u00a0\u202f"
_HELD = re.compile(rf"(?<!\S)(\S*?)([{NO_BREAK}])(?=(\S*))")


def with_no_break_spaces(source: str, text: str) -> str:
    """Return ``text`` with the no-break spaces of ``source``, where a word beside one is beside a space in ``text``.

    Where neither neighbour is found, or one is found twice, the space stays an ordinary one; that is no mistake.
    """
    for before, space, after in _HELD.findall(source):
        for word, pattern in ((before, r"(?<!\S)({}) (?=\S)"), (after, r"(?<=\S) ({})(?!\S)")):
            places = list(re.finditer(pattern.format(re.escape(word)), text)) if word else []
            if len(places) == 1:
                start, end = places[0].span()
                text = text[:start] + places[0][0].replace(" ", space) + text[end:]
                break
    return text
