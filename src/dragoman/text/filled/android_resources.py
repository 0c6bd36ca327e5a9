"""Android's ``strings.xml``: strings, arrays and plurals, with their escapes and inline markup.

Markup inside a string (``<b>``, ``<xliff:g>``) is code that survives translation. What is marked
``translatable="false"`` stays, and so do references such as ``@string/other``.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from dragoman.text.filled.comments import markup_comment_above
from dragoman.text.filled.escapes import joined_surrogates
from dragoman.text.filled.plural_categories import plural_categories
from dragoman.text.filled.spans import SpannedDocument
from dragoman.text.formats.inline import Inline, InlinePart, escaped, joined, read_inline, split_codes, to_xml
from dragoman.text.formats.markup import Element, MarkupSource, Unit, check_root, units

_KINDS = ("string", "string-array", "plurals")
_REFERENCE = re.compile(r"[@?](?:\+?[\w.]+:)?[\w.]+/[\w.]+|@null|@empty")
_ESCAPE = re.compile(r"\\(?:u(?P<hex>[0-9A-Fa-f]{4})|(?P<char>.))|(?P<quote>\")|(?P<space>[ \t\n]+)", re.DOTALL)
_IN_CDATA = re.compile(r"\\(?:u(?P<hex>[0-9A-Fa-f]{4})|(?P<char>['nt\\@?]))", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t"}


class AndroidString(NamedTuple):
    """String with what it takes to write its translation."""

    inline: Inline
    """Its text, with escapes read outside of tags."""
    raw: str
    """Content of its element in the file."""
    quoted: bool
    """True if quotes keep white space in it; they are no part of the text, and a translation has them around it."""

    @classmethod
    def of(cls, inline: Inline, raw: str) -> "AndroidString":
        """Read Android's escapes in the content of an element."""
        pieces = split_codes(inline.text, inline.codes)  # characters and codes in turn
        plain, quoted = pieces[::2], False
        if _is_cdata(raw):  # attributes there keep their quotes
            plain = [_IN_CDATA.sub(_character, piece) for piece in plain]
        else:
            quoted = any(found["quote"] for piece in plain for found in _ESCAPE.finditer(piece))
            read = _Quotes().read if quoted else _character
            plain = [_ESCAPE.sub(read, piece) for piece in plain]
        if quoted:
            plain[0] = plain[0].lstrip(_OUTSIDE)
            plain[-1] = plain[-1].rstrip(_OUTSIDE)
        pieces[::2] = [joined_surrogates(piece.replace(_OUTSIDE, " ")) for piece in plain]
        parts = [InlinePart(piece, number % 2 == 1) for number, piece in enumerate(pieces)]
        text, codes = joined(parts, lambda characters: escaped(_escaped(characters, quoted=quoted)))
        return cls(Inline(text, codes, inline.spellings), raw, quoted)

    def written(self, text: str, codes: Sequence[str]) -> str:
        """Return a translation as the content of the element."""
        raw = self.raw
        if _is_cdata(raw):
            content = re.sub(r"(['\\])(?!\")", r"\\\1", text)
            return f"<![CDATA[{_with_line_ends(content).replace(']]>', ']]]]><![CDATA[>')}]]>"
        pieces = split_codes(text, codes)
        pieces[::2] = [_escaped(piece, quoted=self.quoted) for piece in pieces[::2]]
        content = to_xml("".join(pieces), Inline(text, tuple(codes), self.inline.spellings))
        if self.quoted:
            return f'"{content}"'
        content = re.sub(r"^ ", r"\\u0020", content) if raw.lstrip().startswith("\\u0020") else content
        content = re.sub(r" $", r"\\u0020", content) if raw.rstrip().endswith("\\u0020") else content
        return re.sub(r"^([@?])", r"\\\1", content)


_OUTSIDE = "\udc20"
"""Stands for white space outside of quotes: half of a surrogate pair, which no file holds."""


class _Quotes:
    """Reader of a string with quotes, which keep the white space between them; outside, Android makes it one space."""

    def __init__(self) -> None:
        self.inside = False

    def read(self, match: re.Match[str]) -> str:
        if match["quote"]:
            self.inside = not self.inside
            return ""
        return _OUTSIDE if match["space"] and not self.inside else _character(match)


def _character(match: re.Match[str]) -> str:
    """Return the character of an escape; white space stays."""
    found = match.groupdict()
    if found["hex"]:
        return chr(int(found["hex"], 16))
    return _PLAIN.get(found["char"], found["char"]) if found["char"] else match[0]


def _is_cdata(raw: str) -> bool:
    return raw.strip().startswith("<![CDATA[") and raw.strip().endswith("]]>") and raw.count("<![CDATA[") == 1


class AndroidResources(SpannedDocument):
    """Slots of a resource file: one per string, item of an array, or plural form."""

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a resource file; plurals get the categories of the ``target`` language.

        Raises:
            DataError: not XML, or another kind of XML; the message names file and line.
        """
        self.markup = MarkupSource(raw, name)
        super().__init__(self.markup)
        check_root(self.markup, "resources", "Android's string resources")
        self.categories = plural_categories(target)
        for unit in units([self.markup.utf8], name, "resources", *_KINDS):
            element = unit.element
            if element.attributes.get("translatable") != "false":
                self.add_unit(unit, element.attributes.get("name", ""))

    def add_unit(self, unit: Unit, name: str) -> None:
        """Add the slots of a string, an array or a plural."""
        if unit.element.name == "string":
            self.add_text(unit, unit.element, name)
            return
        items = list(unit.element.all("item"))
        if unit.element.name == "string-array":
            for number, item in enumerate(items):
                self.add_text(unit, item, f"{name}.{number}")
            return
        forms = {item.attributes.get("quantity", "other"): item for item in items}
        texts = {category: self.string(unit, item) for category, item in forms.items()}
        plain = {category: string.inline.text for category, string in texts.items()}
        for category, item in forms.items():
            self.add_text(unit, item, f"{name}.{category}", texts[self.categories.form_of(category, plain)])
        for category in self.categories.missing(texts):
            self.add_form(unit, items, f"{name}.{category}", category, texts["other"])

    def notes_of(self, unit: Unit) -> tuple[str, ...]:
        """Return the comment above a string, an array or a plural."""
        return markup_comment_above(self.markup.utf8, unit.element.start)

    def string(self, unit: Unit, element: Element) -> AndroidString:
        """Return the string of an element."""
        raw = unit.slice(element.inside, element.outside)
        return AndroidString.of(read_inline(element, unit, keep_space=False), raw)

    def add_text(self, unit: Unit, element: Element, key: str, string: AndroidString | None = None) -> None:
        """Add the slot of an element that has a text of its own; ``string`` is translated in its place, if given."""
        string = string or self.string(unit, element)
        inline = string.inline
        if not element.is_one_tag and not _REFERENCE.fullmatch(inline.text.strip()):
            self.add(
                (element.inside, element.outside),
                inline.text,
                place=f"{self.markup.name}:{element.line}",
                key=key,
                codes=inline.codes,
                write=string.written,
                notes=self.notes_of(unit),
            )

    def add_form(self, unit: Unit, items: list[Element], key: str, category: str, string: AndroidString) -> None:
        """Add a plural form that the file does not have, after the last one."""
        last = items[-1]
        before = unit.slice(unit.element.inside if len(items) == 1 else items[-2].end, last.start)
        gap = before[len(before.rstrip()) :].replace("\r", "")
        self.add(
            (last.end, last.end),
            string.inline.text,
            place=f"{self.markup.name}:{last.line}",
            key=key,
            codes=string.inline.codes,
            write=string.written,
            notes=self.notes_of(unit),
            around=(f'{gap}<item quantity="{category}">', "</item>"),
        )


def _escaped(text: str, *, quoted: bool) -> str:
    """Return a text with Android's escapes; between quotes, apostrophes stand for themselves."""
    return _with_line_ends(re.sub(r'([\\"])' if quoted else r"""([\\"'])""", r"\\\1", text))


def _with_line_ends(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")
