r"""What in a text stands for something else and must survive translation: ``%s``, ``{name}``, tags, links, ``\n``.

Found by their looks alone, in the syntaxes that interface strings use.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple


class Role(Enum):
    OPENS = "opens"
    CLOSES = "closes"
    ALONE = "alone"
    ORDERED = "ordered"
    """Stands alone, but in a fixed order with others of its role: one end of what a format pairs by number."""


class Placeholder(NamedTuple):
    start: int
    end: int
    text: str
    role: Role
    name: str
    """Of a tag that opens or closes; else empty."""


def find(text: str, codes: Iterable[str] = ()) -> list[Placeholder]:
    """The placeholders of a text, in their order; none overlap.

    Args:
        codes: texts that are placeholders whatever they look like.
    """
    fixed = sorted({code for code in codes if code}, key=len, reverse=True)
    found, at, pattern, closings = [], 0, _pattern(tuple(fixed)), _closings(text)
    while match := pattern.search(text, at):
        at = match.end()
        if match.lastgroup == "brace":
            if match.start() not in closings:
                continue  # a brace that nothing closes is a brace
            at = closings[match.start()]
        found.append(_placeholder(text[match.start() : at], match.start(), match.lastgroup == "code"))
    return _paired(found)


def _placeholder(text: str, start: int, is_code: bool) -> Placeholder:
    end, role, name = start + len(text), Role.ALONE, ""
    if tag := _TAG.fullmatch(text):
        name = tag["name"].lower()
        if tag["slash"]:
            role = Role.CLOSES
        elif not tag["empty"] and name not in _VOID:
            role = Role.OPENS
        if is_code and name.rpartition(":")[2] in _HALVES:
            role = Role.ORDERED
    elif is_code and (tag := _FIRST_TAG.match(text)) and tag["name"].rpartition(":")[2] in _HALVES:
        role = Role.ORDERED
    return Placeholder(start, end, text, role, name)


def _paired(found: list[Placeholder]) -> list[Placeholder]:
    """``found``, where a tag that nothing closes, or that closes nothing, stands alone."""
    opened: list[int] = []
    single = set()
    for i, placeholder in enumerate(found):
        if placeholder.role is Role.OPENS:
            opened.append(i)
        elif placeholder.role is Role.CLOSES:
            at = next((k for k in reversed(range(len(opened))) if found[opened[k]].name == placeholder.name), None)
            single.update([i] if at is None else opened[at + 1 :])
            del opened[len(opened) if at is None else at :]
    single.update(opened)
    return [p._replace(role=Role.ALONE, name="") if i in single else p for i, p in enumerate(found)]


def _closings(text: str) -> dict[int, int]:
    """Where each brace that is closed opens -> where it closes, both places its brace included."""
    opened: list[int] = []
    closed = {}
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            closed[opened.pop()] = match.end()
    return closed


_BRACE = re.compile("[{}]")
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_HALVES = {"bpt", "ept", "bx", "ex", "sc", "ec", "sm", "em", "it"}
"""XLIFF's and TMX's elements that mark one end of something."""
_TAG = re.compile(r"<(?P<slash>/)?(?P<name>[A-Za-z0-9][\w.:-]*)(?:\s(?:[^<>\"']|\"[^\"]*\"|'[^']*')*?)?(?P<empty>/)?>")
_FIRST_TAG = re.compile(r"<(?P<name>[A-Za-z][\w.:-]*)")
_GENERAL = r"""
  (?P<tag>   </?[A-Za-z0-9][\w.:-]*(?:\s(?:[^<>"']|"[^"]*"|'[^']*')*?)?/?> )
| (?P<link>  (?:\b(?:https?|ftp)://|\bwww\.(?=\w))[^\s<>"'`|\\^(){}\[\]]*(?:\{[^{}\s]*\}[^\s<>"'`|\\^(){}\[\]]*
                 |\([^\s()]*\)[^\s<>"'`|\\^(){}\[\]]*)*(?<![.,;:!?]) )
| (?P<mail>  (?<![\w.+-])\w[\w.+-]*@\w[\w-]*(?:\.\w[\w-]*)+ )
| (?P<ruby>  [%$\#]\{[^{}\s]*\} )
| (?P<brace> \{ )
| (?P<print> %(?:\([^()%]*\)|\d+\$)?[-+0\#']*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh|h|ll|l|L|z|j|t|q)?[sdiufFeEgGxXoscparn@]
           | %L?\d+ | %% )
| (?P<shell> \$[A-Za-z_]\w*(?:\$|(?:\([^()\s]*\)))? )
| (?P<entity>&(?:[A-Za-z][A-Za-z0-9]{1,31}|\#\d{1,7}|\#[xX][0-9A-Fa-f]{1,6}); )
| (?P<key>   \[%[^\[\]]*%\] )
| (?P<slash> \\[nrt] )
"""


def _pattern(codes: tuple[str, ...]) -> re.Pattern[str]:
    if not codes:
        return _PLAIN
    return re.compile(f"(?P<code>{'|'.join(map(re.escape, codes))})|{_GENERAL}", re.VERBOSE)


_PLAIN = re.compile(_GENERAL, re.VERBOSE)
