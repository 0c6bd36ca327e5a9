"""Android's ``strings.xml``: strings, arrays and plurals, with their escapes and inline markup.

Markup inside a string (``<b>``, ``<xliff:g>``) is code that survives translation. What is marked
``translatable="false"`` stays, and so do references such as ``@string/other``.
"""

import re
from collections.abc import Sequence

from dragoman.text.filled.comments import markup_comment_above
from dragoman.text.filled.plural_categories import plural_categories
from dragoman.text.filled.spans import SpannedDocument, Write
from dragoman.text.formats.inline import Inline, read_inline, to_xml
from dragoman.text.formats.markup import Element, MarkupSource, Unit, check_root, units

_KINDS = ("string", "string-array", "plurals")


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
        texts = {category: self.inline(unit, item) for category, item in forms.items()}
        plain = {category: inline.text for category, inline in texts.items()}
        for category, item in forms.items():
            self.add_text(unit, item, f"{name}.{category}", texts[self.categories.form_of(category, plain)])
        for category in self.categories.missing(texts):
            self.add_form(unit, items, f"{name}.{category}", category, texts["other"])

    def notes_of(self, unit: Unit) -> tuple[str, ...]:
        """Return the comment above a string, an array or a plural."""
        return markup_comment_above(self.markup.utf8, unit.element.start)

    def inline(self, unit: Unit, element: Element) -> Inline:
        """Return the text of an element, its escapes read."""
        raw = unit.slice(element.inside, element.outside)
        return unescaped(read_inline(element, unit, keep_space=False), raw)

    def add_text(self, unit: Unit, element: Element, key: str, inline: Inline | None = None) -> None:
        """Add the slot of an element that has a text of its own."""
        inline = inline or self.inline(unit, element)
        if not element.is_one_tag and not _REFERENCE.fullmatch(inline.text.strip()):
            self.add(
                (element.inside, element.outside),
                inline.text,
                place=f"{self.markup.name}:{element.line}",
                key=key,
                codes=inline.codes,
                write=writer(inline, unit.slice(element.inside, element.outside)),
                notes=self.notes_of(unit),
            )

    def add_form(self, unit: Unit, items: list[Element], key: str, category: str, inline: Inline) -> None:
        """Add a plural form that the file does not have, after the last one."""
        last = items[-1]
        before = unit.slice(unit.element.inside if len(items) == 1 else items[-2].end, last.start)
        gap = before[len(before.rstrip()) :].replace("\r", "")
        self.add(
            (last.end, last.end),
            inline.text,
            place=f"{self.markup.name}:{last.line}",
            key=key,
            codes=inline.codes,
            write=writer(inline, unit.slice(last.inside, last.outside)),
            notes=self.notes_of(unit),
            around=(f'{gap}<item quantity="{category}">', "</item>"),
        )


_REFERENCE = re.compile(r"[@?](?:\+?[\w.]+:)?[\w.]+/[\w.]+|@null|@empty")
_ESCAPE = re.compile(r"\\(?:u(?P<hex>[0-9A-Fa-f]{4})|(?P<char>.))|(?P<quote>\")", re.DOTALL)
_IN_CDATA = re.compile(r"\\(?:u(?P<hex>[0-9A-Fa-f]{4})|(?P<char>['nt\\@?]))(?P<quote>(?!))?", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t"}


def _is_cdata(raw: str) -> bool:
    return raw.strip().startswith("<![CDATA[") and raw.strip().endswith("]]>") and raw.count("<![CDATA[") == 1


def unescaped(inline: Inline, raw: str) -> Inline:
    """Return a text, whose content in the file is ``raw``, with Android's escapes read, outside of its tags."""

    def read(match: re.Match[str]) -> str:
        if match["quote"]:
            return ""  # quotes keep white space, and are not part of the text
        return chr(int(match["hex"], 16)) if match["hex"] else _PLAIN.get(match["char"], match["char"])

    escape = _IN_CDATA if _is_cdata(raw) else _ESCAPE  # attributes there keep their quotes
    texts = [part if part in inline.codes else escape.sub(read, part) for part in _split(inline.text, inline.codes)]
    return Inline("".join(texts), inline.codes, inline.spellings)


def _split(text: str, codes: Sequence[str]) -> list[str]:
    """Return the codes of a text and what stands between them."""
    pattern = "|".join(map(re.escape, sorted(set(codes), key=len, reverse=True)))
    return re.split(f"({pattern})", text) if pattern else [text]


def writer(inline: Inline, raw: str) -> Write:
    """Return the function that writes the translation of a text whose content in the file is ``raw``."""
    quoted = len(raw.strip()) > 1 and raw.strip()[0] == raw.strip()[-1] == '"'

    def write(text: str, codes: Sequence[str]) -> str:
        if _is_cdata(raw):
            escaped = re.sub(r"(['\\])(?!\")", r"\\\1", text)
            return f"<![CDATA[{_with_line_ends(escaped).replace(']]>', ']]]]><![CDATA[>')}]]>"
        parts = _split(text, codes)
        escaped = "".join(part if part in codes else _escaped(part, quoted=quoted) for part in parts)
        content = to_xml(escaped, Inline(text, tuple(codes), inline.spellings))
        if quoted:
            return f'"{content}"'
        content = re.sub(r"^ ", r"\\u0020", content) if raw.lstrip().startswith("\\u0020") else content
        content = re.sub(r" $", r"\\u0020", content) if raw.rstrip().endswith("\\u0020") else content
        return re.sub(r"^([@?])", r"\\\1", content)

    return write


def _escaped(text: str, *, quoted: bool) -> str:
    """Return a text with Android's escapes; between quotes, apostrophes stand for themselves."""
    return _with_line_ends(re.sub(r'([\\"])' if quoted else r"""([\\"'])""", r"\\\1", text))


def _with_line_ends(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")
