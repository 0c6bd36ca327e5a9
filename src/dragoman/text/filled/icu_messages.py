"""ICU messages: ``{n, plural, one {# file} other {# files}}`` taken apart into the texts of its branches.

Each branch is translated as a whole sentence. Words around a plural or selection would leave fragments, so they are
moved into its branches first, as ICU's own guide advises; the message means the same afterwards. A plural gets the
categories of the target language. Arguments such as ``{name}`` stay in the texts, where they are placeholders, and so
does the ``#`` that stands for the number of a plural.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dragoman.text.document import splice
from dragoman.text.filled.plural_categories import PluralCategories
from dragoman.text.invariants import is_wordless

DEPTH = 8
"""Largest nesting depth of branches."""
MOST = 64
"""Largest number of branches in a message after words were moved into them."""


class Branch(NamedTuple):
    """Text of one branch of a message."""

    text: str
    path: str
    """Selectors that lead to it, such as ``one`` or ``female.other``."""
    codes: tuple[str, ...] = ()
    """A ``#`` for each that stands for the number of a plural."""


@dataclass(frozen=True)
class IcuChoice:
    """Argument with branches: a plural, a selection or an ordinal."""

    name: str
    kind: str
    head: str
    """Beginning of the argument up to its first selector, as it is written."""
    branches: tuple[tuple[str, str, "Message", str], ...]
    """Selectors, the space after each, messages, and what follows each closing brace: space, or the end."""


Message = tuple["str | IcuChoice", ...]


def message_pieces(text: str, categories: PluralCategories) -> list[str | Branch] | None:
    """Take a message apart into its branches and what stands between them; None if it has no branches.

    Args:
        categories: those of the target language; a plural gets each of them.
    """
    if not _CHOICE.search(text):
        return None
    try:
        message, end = _Parser(text).message(0, 0)
        if end != len(text) or not any(isinstance(part, IcuChoice) for part in message):
            return None
        pieces = list(_pieces(message, categories, "", None))
    except ValueError:
        return None
    return pieces if sum(isinstance(piece, Branch) for piece in pieces) <= MOST else None


def written_branch(text: str, source: str) -> str:
    """Return the translation of a branch with new apostrophes written so that they quote nothing."""
    return text if re.search(r"'[{}#|]", source) else re.sub(r"(?<!')'(?=[{}#|])", "''", text)


_CHOICE = re.compile(r"\{\s*[\w.\-]+\s*,\s*(?:plural|selectordinal|select)\s*,")
_HEAD = re.compile(r"\{\s*([\w.\-]+)\s*,\s*(plural|selectordinal|select)\s*,\s*(offset:\s*\d+\s*)?")
_SELECTOR = re.compile(r"(=\d+|[^\s{}=,#']+)(\s*)\{")


class _Parser:
    def __init__(self, text: str):
        self.text = text

    def message(self, at: int, depth: int) -> tuple[Message, int]:
        """Return a message and the position of the brace that closes it, or the end of the text."""
        if depth > DEPTH:
            raise ValueError("nested too deeply")
        parts: list[str | IcuChoice] = []
        start = at
        while at < len(self.text) and self.text[at] != "}":
            if self.text[at] == "'":
                at = self.after_quote(at, depth)
            elif self.text[at] != "{":
                at += 1
            elif head := _HEAD.match(self.text, at):
                parts.append(self.text[start:at])
                choice, at = self.choice(head, depth)
                parts.append(choice)
                start = at
            else:
                at = self.after_argument(at)
        return (*parts, self.text[start:at]), at

    def after_quote(self, at: int, depth: int) -> int:
        following = self.text[at + 1 : at + 2]
        if following == "'":
            return at + 2
        if following in ("{", "}") or (following == "#" and depth):
            end = self.text.find("'", at + 2)
            return len(self.text) if end < 0 else end + 1
        return at + 1

    def after_argument(self, at: int) -> int:
        depth = 0
        for i in range(at, len(self.text)):
            depth += {"{": 1, "}": -1}.get(self.text[i], 0)
            if not depth:
                return i + 1
        raise ValueError("a brace is not closed")

    def choice(self, head: re.Match[str], depth: int) -> tuple[IcuChoice, int]:
        at, branches = head.end(), []
        while found := _SELECTOR.match(self.text, at):
            message, end = self.message(found.end(), depth + 1)
            if self.text[end : end + 1] != "}":
                raise ValueError("a branch is not closed")
            space = re.compile(r"\s*").match(self.text, end + 1)
            assert space
            branches.append((found[1], found[2], message, space[0]))
            at = space.end()
        if not branches or self.text[at : at + 1] != "}" or "other" not in [name for name, *_ in branches]:
            raise ValueError("not a complete argument")
        return IcuChoice(head[1], head[2], head[0], tuple(branches)), at + 1


def _pieces(
    message: Message, categories: PluralCategories, path: str, counted: IcuChoice | None
) -> Iterator[str | Branch]:
    """Yield the pieces of a message.

    Args:
        counted: plural whose number ``#`` stands for in the message; None outside of plurals.
    """
    choices = [i for i, part in enumerate(message) if isinstance(part, IcuChoice)]
    outside = [part for part in message if isinstance(part, str)]
    if not choices:
        text = "".join(outside)
        signs = tuple("#" for _ in _number_signs(text)) if counted else ()
        yield text if is_wordless(text) or not text.strip() else Branch(text, path, signs)
    elif all(is_wordless(text.replace("#", "")) or not text.strip() for text in outside):
        for part in message:
            if isinstance(part, str):
                yield part
            else:
                yield from _branches(part, categories, path, counted)
    else:
        first = message[choices[0]]
        assert isinstance(first, IcuChoice)
        yield from _branches(first, categories, path, counted, message[: choices[0]], message[choices[0] + 1 :])


def _branches(
    choice: IcuChoice,
    categories: PluralCategories,
    path: str,
    counted: IcuChoice | None,
    before: Message = (),
    after: Message = (),
) -> Iterator[str | Branch]:
    """Yield the pieces of an argument, with what stands around it moved into each branch."""
    if counted:
        before, after = (_named_numbers(part, counted) for part in (before, after))
    elif choice.kind != "select":
        before, after = (_quoted_signs(part) for part in (before, after))
    yield choice.head
    for selector, space, message, following in _needed(choice, categories):
        if choice.kind != "select" and any(isinstance(part, IcuChoice) for part in after):
            message = _named_numbers(message, choice)
        yield f"{selector}{space}{{"
        inside = _joined((*before, *message, *after))
        here = counted if choice.kind == "select" else choice
        yield from _pieces(inside, categories, f"{path}.{selector}".lstrip("."), here)
        yield "}" + following
    yield "}"


def _needed(choice: IcuChoice, categories: PluralCategories) -> list[tuple[str, str, Message, str]]:
    """Return the branches that the target language needs: of a plural its categories, else those there are."""
    present = {selector: branch for branch in choice.branches for selector in [branch[0]]}
    if choice.kind != "plural" or not categories.names:
        return list(choice.branches)
    surplus = categories.surplus(present)
    others = [branch for branch in choice.branches if branch[0] not in surplus]
    lacking = categories.missing(present)
    _, space, message, _ = present["other"]
    texts = {selector: "".join(_texts(branch[2])) for selector, branch in present.items()}
    if categories.form_of("one", texts, ["#"]) == "other":
        others = [("one", b[1], message, b[3]) if b[0] == "one" else b for b in others]
    at = next(i for i, branch in enumerate(others) if branch[0] == "other")
    gap = others[at - 1][3] if at and others[at - 1][3] else " "
    return [*others[:at], *((name, space, message, gap) for name in lacking), *others[at:]]


def _texts(message: Message) -> Iterator[str]:
    """Yield all texts of a message and of its branches."""
    for part in message:
        if isinstance(part, str):
            yield part
        else:
            for _, _, inner, _ in part.branches:
                yield from _texts(inner)


def _joined(parts: Sequence["str | IcuChoice"]) -> Message:
    """Join neighbouring texts."""
    joined: list[str | IcuChoice] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)


# ---- the number of a plural, written # ---------------------------------------------------------------


def _number_signs(text: str, depth: int = 1) -> Iterator[int]:
    """Yield the positions of each ``#`` of a text, those in quotes and in arguments left out.

    Args:
        depth: 0 outside of all branches, where a ``#`` cannot be quoted.
    """
    parser, at = _Parser(text), 0
    while at < len(text):
        if text[at] == "'":
            at = parser.after_quote(at, depth)
        elif text[at] == "{":
            at = parser.after_argument(at)
        else:
            if text[at] == "#":
                yield at
            at += 1


def _quoted_signs(message: Message) -> Message:
    """Write each ``#`` of a text outside of plurals in quotes, since it would become the number of the plural that it
    is moved into.

    Raises:
        ValueError: an apostrophe beside it, which would begin or end a quotation.
    """
    if any("'#" in part or "#'" in part for part in message if isinstance(part, str)):
        raise ValueError("an apostrophe beside a # cannot be moved")
    return _with_signs(message, "'#'", depth=0)


def _named_numbers(message: Message, choice: IcuChoice) -> Message:
    """Write the number of a plural by its name, since ``#`` would belong to the argument that it is moved into.

    Raises:
        ValueError: the plural has an offset, and its number no other spelling than ``#``.
    """
    if "offset:" in choice.head and any(list(_number_signs(part)) for part in message if isinstance(part, str)):
        raise ValueError("an offset has no other spelling than #")
    return _with_signs(message, f"{{{choice.name}, number}}", depth=1)


def _with_signs(message: Message, new: str, *, depth: int) -> Message:
    return tuple(
        splice(part, [(at, at + 1, new) for at in _number_signs(part, depth)]) if isinstance(part, str) else part
        for part in message
    )
