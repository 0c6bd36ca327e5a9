"""Comments directly above an entry, which developers write for translators: the notes of formats without a place for
them."""

import re
from collections.abc import Sequence

from dragoman.text.lines import on_one_line

_C_STYLE = re.compile(r"/\*(?P<block>.*?)\*/|//(?P<line>[^\n]*)", re.DOTALL)
_BLANK = re.compile(r"\n[ \t\r]*\n")
_EMPTY = ("No comment provided by engineer.",)
"""Comments that a tool writes where there is none."""


def comment_lines_above(text: str, position: int, marks: Sequence[str]) -> tuple[str, ...]:
    """Return the comment in the lines right above the line of a position, as one text; nothing if there is none.

    Args:
        marks: what a line of a comment begins with.
    """
    found: list[str] = []
    end = text.rfind("\n", 0, position)
    while end >= 0:
        start = text.rfind("\n", 0, end) + 1
        line = text[start:end].strip()
        if not line.startswith(tuple(marks)):
            break
        found.append(line.lstrip("".join(marks)).strip())
        end = start - 1
    return _noted(" ".join(reversed(found)))


def markup_comment_above(content: bytes, start: int) -> tuple[str, ...]:
    """Return the comment of an XML file that ends above a position, without an empty line between."""
    end = start
    while end and content[end - 1 : end].isspace():
        end -= 1
    if content[end - 3 : end] != b"-->" or content.count(b"\n", end, start) > 1:
        return ()
    begin = content.rfind(b"<!--", 0, end)
    return _noted(content[begin + 4 : end - 3].decode())


def c_comments_above(gap: str) -> tuple[str, ...]:
    """Return the comments in the text between two entries that stand right above the second."""
    found: list[str] = []
    at = 0
    for comment in _C_STYLE.finditer(gap):
        if _BLANK.search(gap[at : comment.start()]):
            found.clear()
        found.append((comment["block"] or comment["line"] or "").strip())
        at = comment.end()
    return () if _BLANK.search(gap[at:]) else _noted(" ".join(found))


def _noted(comment: str) -> tuple[str, ...]:
    tidy = on_one_line(comment)
    return (tidy,) if tidy and tidy not in _EMPTY else ()
