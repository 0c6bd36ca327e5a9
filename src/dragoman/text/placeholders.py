# ruff: noqa: RUF001  (quotation marks of many scripts)
r"""Placeholders: parts of a text that must survive translation unchanged: ``%s``, ``{name}``, tags, links, ``\n``.

They are found by their form alone, in the syntaxes of interface strings.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple


class Role(Enum):
    """Constraint of a placeholder on the order of the others."""

    OPENS = "opens"
    CLOSES = "closes"
    ALONE = "alone"
    ORDERED = "ordered"
    """One of two ends whose other end is elsewhere, or is matched by a number: all tags must stay in their order."""


class Placeholder(NamedTuple):
    """Placeholder with its position, role and tag name."""

    start: int
    end: int
    text: str
    role: Role
    name: str
    """Name of a tag that opens or closes; else empty."""


def find_placeholders(text: str, codes: Iterable[str] = ()) -> list[Placeholder]:
    """Return the placeholders of a text, in order and without overlap.

    Args:
        codes: texts that are placeholders whatever their form.
    """
    fixed = tuple(sorted({code for code in codes if code}, key=len, reverse=True))
    if not fixed and not _SIGN.search(text) and (text.isascii() or not _PICTURE.search(text)):
        return []
    return list(_remembered(text, fixed) if len(text) <= _SHORT else _found(text, fixed))


def has_placeholder(text: str) -> bool:
    """Return True if a text has a placeholder that prose has not: emoji and Turkish percentages, such as %50, do not
    count."""
    if not _SIGN.search(text):
        return False
    return any(kind != "emoji" and not _is_turkish(text, start, end) for start, end, kind in _spans(text, _PLAIN))


_SIGN = re.compile(r"[<%{$@\\`&\[\]]|__|[:!][\w+/-]|www\.")
"""Cheap test, by which most texts have no placeholder but emoji."""
_PERCENT_FIRST = re.compile(r"%\d+(?:[.,]\d+)?")


def _is_turkish(text: str, start: int, end: int) -> bool:
    """Return True if what looks like Qt's ``%1`` has several digits: a percentage."""
    number = _PERCENT_FIRST.match(text, start)
    return number is not None and number.end() >= end and len(number[0]) > len("%1")


def _found(text: str, codes: tuple[str, ...]) -> tuple[Placeholder, ...]:
    spans = _spans(text, _pattern(codes))
    return tuple(_mark_unpaired([_placeholder(text[start:end], start, kind) for start, end, kind in spans]))


def _spans(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and kind of each placeholder."""
    at, last, closings = 0, 0, _closings(text)
    while match := pattern.search(text, at):
        at, kind = match.end(), match.lastgroup or ""
        if kind == "brace":
            if match.start() not in closings:
                continue  # an unclosed brace is plain text
            at = closings[match.start()]
        if kind in _NOT_AFTER_DIGITS and match.start() != last and _is_percentage(text, match):
            at = match.start() + 1
            continue
        yield match.start(), at, kind
        last = at


_SHORT = 1000
"""Most characters of a text whose placeholders are remembered, since each stage of a translation asks for them."""
_remembered = lru_cache(maxsize=512)(_found)


def texts_between(text: str, placeholders: Iterable[Placeholder]) -> list[str]:
    """Return what stands before, between and after the placeholders of a text: one part more than there are of them."""
    parts, at = [], 0
    for found in placeholders:
        parts.append(text[at : found.start])
        at = found.end
    return [*parts, text[at:]]


def without_codes(text: str, codes: Iterable[str]) -> str:
    """Return a text without these codes, as its length counts in a file that states a limit."""
    for code in sorted(set(codes), key=len, reverse=True):
        text = text.replace(code, "")
    return text


def _placeholder(text: str, start: int, kind: str) -> Placeholder:
    end = start + len(text)
    if kind in _LINK_ENDS:  # [text](address)
        return Placeholder(start, end, text, _LINK_ENDS[kind], "[")
    if kind == "code" and (text in ("[", "![") or text.startswith(("](", "]["))):  # other links of Markdown
        return Placeholder(start, end, text, Role.CLOSES if text[0] == "]" else Role.OPENS, "[")
    first = _FIRST_TAG.match(text)
    if kind == "code" and first and first["name"].rpartition(":")[2].rstrip("0123456789") in _HALVES:
        return Placeholder(start, end, text, Role.ORDERED, first["name"])
    if tag := _TAG.fullmatch(text):
        name = tag["name"].lower()
        alone = tag["empty"] or name in _VOID
        return Placeholder(start, end, text, Role.CLOSES if tag["slash"] else Role.ALONE if alone else Role.OPENS, name)
    return Placeholder(start, end, text, Role.ALONE, "")


def _is_percentage(text: str, match: re.Match[str]) -> bool:
    """Return True if the percent sign belongs to the number before it, as in 50%discount, 100%sure or the Hungarian
    50%-a."""
    before = text[: match.start()]
    if _SUFFIX.fullmatch(match[0]):
        return before.rstrip()[-1:].isdigit()
    if not before[-1:].isdigit():
        return False
    return match.lastgroup == "percent" or text[match.end() : match.end() + 1].isalpha()


_SUFFIX = re.compile("%-[a-z]")
_NOT_AFTER_DIGITS = {"percent", "print"}
_LINK_ENDS = {"begin": Role.OPENS, "finish": Role.CLOSES}


def _mark_unpaired(found: list[Placeholder]) -> list[Placeholder]:
    """Mark tags that nothing closes, or that close nothing, as ``ORDERED``."""
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
    """Map the start of each closed brace pair to its end (exclusive)."""
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
"""Elements of XLIFF and TMX, and of office documents with a number in their names, that mark one end of something."""
_TAG = re.compile(r"<(?P<slash>/)?(?P<name>[A-Za-z0-9][\w.:-]*)(?:\s(?:[^<>\"']|\"[^\"]*\"|'[^']*')*?)?(?P<empty>/)?>")
_FIRST_TAG = re.compile(r"<(?P<name>[A-Za-z][\w.:-]*)")
_UNITS = (
    "s|x|px|pt|em|rem|st|nd|rd|th|d|h|m|hr|hrs|min|mins|sec|secs|ms|[kKMGTP]?i?[bB]|[kKMG]?bps|[kMG]?Hz|fps|dpi|ppm"
)
_UNITS += "|[cmk]m|k?g|mg|lb|oz|[kM]?W|[kM]?Wh|m?A|m?V|[CFK]"
"""Units that may follow a printf conversion without a space: %dpx, %dx%d, %sMB."""
_EMOJI = (  # a character that is a picture, or a pictogram of older standards; ™, ©, ® and ° are signs (invariants.py)
    "[\\U0001f000-\\U0001f1e5\\U0001f200-\\U0001f3fa\\U0001f400-\\U0001faff\\u203c\\u2049\\u2190-\\u21ff\\u2300-\\u23ff"
    "\\u24c2\\u2500-\\u27bf\\u2934\\u2935\\u2b00-\\u2bff\\u303d\\u3297\\u3299\\ufffd]"
)
_PICTURE = re.compile(_EMOJI[:-1] + "\\U0001f1e6-\\U0001f1ff\\u20e3\\ufe0f]")
"""Same for emoji: each has one of these characters."""
_AGREEMENT = r"(?:inflect|morphology|agreeWith\w+|referentConcept)\s*:[^()\n]*"
"""Attributes of Apple's automatic grammar agreement: ``^[%lld file](inflect: true)``."""
_PRINTF = r"[-+0\#',]*(?:\d+|\*)?(?:\.(?:\d+|\*))?"
"""Flags, width and precision of a printf conversion."""
_GENERAL = rf"""
  (?P<emoji>(?: [\U0001f1e6-\U0001f1ff]{{2}} | [0-9\#*]\ufe0f?\u20e3
           | {_EMOJI}[\ufe0e\ufe0f]?[\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*
             (?:\u200d(?:{_EMOJI}|[\u2640\u2642])[\ufe0e\ufe0f]?[\U0001f3fb-\U0001f3ff]?)*
           | [\u00a9\u00ae\u2122\u2139]\ufe0f )+ ) # UTS 51, 1.4.9
| (?P<comment><!--.*?--> | <%.*?%> | <\?.*?\?> )
| (?P<tag>   </?[A-Za-z0-9][\w.:-]*(?:\s(?:[^<>"']|"[^"]*"|'[^']*')*?)?/?> )
| (?P<link>  (?:\b(?:https?|ftp)://|\bwww\.(?=\w))[^\s<>"'`|\\^(){{}}\[\]]*(?:\{{[^{{}}\s]*\}}[^\s<>"'`|\\^(){{}}\[\]]*
                 |\([^\s()]*\)[^\s<>"'`|\\^(){{}}\[\]]*)*(?<![.,;:!?]) )
| (?P<wiki>  \[\[[^\[\]\n]+\]\] )
| (?P<begin> !?\[(?=[^\[\]]*\]\([^()\s]*\)) | \^\[(?=[^\[\]]*\]\({_AGREEMENT}\)) )
| (?P<finish>\]\((?:[^()\s]*|{_AGREEMENT})\) )
| (?P<ticks> (?<![\w`])(?P<fence>`+)(?!`)[^\n]+?(?<!`)(?P=fence)(?![\w`]) )
| (?P<path>  (?<!\w)[A-Za-z]:\\[^\s"'<>|{{}}%]* )
| (?P<mail>  (?<![\w.+-])\w[\w.+-]*@\w[\w-]*(?:\.\w[\w-]*)+ )
| (?P<ruby>  [%$\#]\{{[^{{}}\s]*\}} | %<\w+>[-+0\#]*\d*(?:\.\d+)?[a-zA-Z] )
| (?P<brace> \{{ )
| (?P<dict>  %(?:\d+\$)?\#@\w+@ | %\([^()%]*\)[-+0\#']*(?:\d+|\*)?(?:\.(?:\d+|\*))?[hlLzjtq]*[a-zA-Z]
           | %\d+\${_PRINTF}(?:[tT]|[hlLzjtq]*)[a-zA-Z@] )
| (?P<percent>%(?![sdiufFeEgGxXoc]%{_PRINTF}(?:hh|ll|[hlLzjtq])?[sdiufFeEgGxXoc](?![A-Za-z]))
             [A-Za-z_](?:[\w.-]*\w)?%(?![\w%@(])
           | %(?![-+0\#']*\d*[hlqLzjt]*(?:[sdiufFeEgGxXoc]|[sdufFeEgGxX](?:{_UNITS}))(?![A-Za-z]))[A-Za-z]{{2}}\w* )
| (?P<print> %{_PRINTF}(?:hh|h|ll|l|L|z|j|t|q)?(?:[sdiufFeEgGxXoscparn@]|[A-Za-z](?!\w))
           | %L?\d+ | %% )
| (?P<shell> \$[A-Za-z_]\w*(?:\$|(?:\([^()\s]*\)))? | \$\([^()\n]*\) | \\\([^()\s]*\) )
| (?P<colon> (?<![^\s("'\[«“‘¿¡>|]):[A-Za-z_]\w+(?![\w:/])
           | (?<![\w:]):(?:[a-z0-9_+-]*[a-z][a-z0-9_+-]*|[+-]1|100):(?![\w:]) )
| (?P<at>    (?<![\w@./!-])(?:@[A-Za-z_]\w* | @(?:\.[a-z]+)?:[A-Za-z_][\w.]*\w)
           | (?<![^\s("'\[«“‘¿¡>])![a-z_]\w+ )
| (?P<dunder>(?<!\w)__[A-Za-z]\w*?__(?!\w) )
| (?P<entity>&(?:[A-Za-z][A-Za-z0-9]{{1,31}}|\#\d{{1,7}}|\#[xX][0-9A-Fa-f]{{1,6}}); )
| (?P<key>   \[%[^\[\]]*%\] )
| (?P<slash> \\(?:[nrt]|u[0-9A-Fa-f]{{4}}|x[0-9A-Fa-f]{{2}}) )
"""


def _pattern(codes: tuple[str, ...]) -> re.Pattern[str]:
    if not codes:
        return _PLAIN
    return re.compile(f"(?P<code>{'|'.join(map(re.escape, codes))})|{_GENERAL}", re.VERBOSE)


_PLAIN = re.compile(_GENERAL, re.VERBOSE)


# ---- comparing source and target ------------------------------------------------------------------


def placeholders_preserved(source: Sequence[Placeholder], target: Sequence[Placeholder]) -> bool:
    """Return True if ``target`` has each placeholder of ``source`` equally often, and all tags nested."""
    if not (source or target):
        return True
    if Counter(p.text for p in source) != Counter(p.text for p in target):
        return False
    if any(p.role is Role.ORDERED for p in source):
        return [p.text for p in source if p.role is not Role.ALONE] == [
            p.text for p in target if p.role is not Role.ALONE
        ]
    return all(p.role is not Role.ORDERED for p in target)
