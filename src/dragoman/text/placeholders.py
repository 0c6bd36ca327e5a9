r"""What in a text stands for something else and must survive translation: ``%s``, ``{name}``, tags, links, ``\n``.

Found by their looks alone, in the syntaxes that interface strings use.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple


class Role(Enum):
    OPENS = "opens"
    CLOSES = "closes"
    ALONE = "alone"
    ORDERED = "ordered"
    """One end of something whose other end is elsewhere, or is told by a number: all tags must stay in their order."""


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
        found.append(_placeholder(text[match.start() : at], match.start(), match.lastgroup or ""))
    return _paired(found)


def _placeholder(text: str, start: int, kind: str) -> Placeholder:
    end = start + len(text)
    if kind in _LINK_ENDS:  # [text](address)
        return Placeholder(start, end, text, _LINK_ENDS[kind], "[")
    first = _FIRST_TAG.match(text)
    if kind == "code" and first and first["name"].rpartition(":")[2] in _HALVES:
        return Placeholder(start, end, text, Role.ORDERED, first["name"])
    if tag := _TAG.fullmatch(text):
        name = tag["name"].lower()
        alone = tag["empty"] or name in _VOID
        return Placeholder(start, end, text, Role.CLOSES if tag["slash"] else Role.ALONE if alone else Role.OPENS, name)
    return Placeholder(start, end, text, Role.ALONE, "")


_LINK_ENDS = {"begin": Role.OPENS, "finish": Role.CLOSES}


def _paired(found: list[Placeholder]) -> list[Placeholder]:
    """``found``, where tags that nothing closes, or that close nothing, are to stay in their order."""
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
    return [p._replace(role=Role.ORDERED) if i in single else p for i, p in enumerate(found)]


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
| (?P<begin> !?\[(?=[^\[\]]*\]\([^()\s]*\)) )
| (?P<finish>\]\([^()\s]*\) )
| (?P<path>  (?<!\w)[A-Za-z]:\\[^\s"'<>|{}%]* )
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


# ---- whether they are all there -------------------------------------------------------------------


def kept(source: Sequence[Placeholder], target: Sequence[Placeholder]) -> bool:
    """Whether a translation with the placeholders ``target`` has each of ``source`` as often, and all tags nested."""
    if Counter(p.text for p in source) != Counter(p.text for p in target):
        return False
    if any(p.role is Role.ORDERED for p in source):
        return [p.text for p in source if p.role is not Role.ALONE] == [
            p.text for p in target if p.role is not Role.ALONE
        ]
    return all(p.role is not Role.ORDERED for p in target)
