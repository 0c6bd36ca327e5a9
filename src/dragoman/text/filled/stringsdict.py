"""Apple's ``.stringsdict``: a property list with plural forms by category."""

from collections.abc import Iterator

from dragoman.errors import DataError
from dragoman.text.filled.plural_categories import CATEGORIES, plural_categories
from dragoman.text.filled.spans import SpannedDocument
from dragoman.text.formats.inline import Inline, read_inline, to_xml
from dragoman.text.formats.markup import Element, MarkupSource, Unit, check_root, units
from dragoman.text.invariants import without_placeholders
from dragoman.text.placeholders import find_placeholders

_RULES = ("NSStringFormatSpecTypeKey", "NSStringFormatValueTypeKey")


class StringsDict(SpannedDocument):
    """Slots of a ``.stringsdict``: one per plural form, and one per format key that has words of its own."""

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a ``.stringsdict``; plurals get the categories of the ``target`` language.

        Raises:
            DataError: not an XML property list of entries by name; the message names file and line.
        """
        if raw.startswith(b"bplist"):
            raise DataError(f"{name}: is a binary property list: convert it to XML first")
        self.markup = MarkupSource(raw, name)
        super().__init__(self.markup)
        check_root(self.markup, "plist", "a property list")
        self.categories = plural_categories(target)
        found = list(units([self.markup.utf8], name, "plist", "dict"))
        if not found:
            raise DataError(f"{name}:1: not a property list of entries by name: there is no dict in it")
        for unit in found:
            for key, _, value in members(unit.element, name):
                if value.name == "dict":
                    self.add_entry(unit, key, value)

    def add_entry(self, unit: Unit, key: str, entry: Element) -> None:
        """Add the slots of an entry: its format, and its variables' forms."""
        for name, _, value in members(entry, self.markup.name):
            if value.name == "dict":
                self.add_variable(unit, f"{key}.{name}", value)
            elif name == "NSStringLocalizedFormatKey" and value.name == "string":
                self.add_text(unit, value, f"{key}.{name}", self.inline(unit, value))

    def add_variable(self, unit: Unit, key: str, variable: Element) -> None:
        found = [m for m in members(variable, self.markup.name) if m[0] not in _RULES and m[2].name == "string"]
        forms = {name: (label, value) for name, label, value in found if name in CATEGORIES}
        texts = {name: self.inline(unit, value) for name, (_, value) in forms.items()}
        plain = {name: inline.text for name, inline in texts.items()}
        for name, (_, value) in forms.items():
            self.add_text(unit, value, f"{key}.{name}", texts[self.categories.form_of(name, plain)])
        for name, _, value in found:
            if name not in CATEGORIES:  # a form by width or device
                self.add_text(unit, value, f"{key}.{name}", self.inline(unit, value))
        for category in self.categories.missing(texts):
            label, value = list(forms.values())[-1]
            self.add_form(unit, label, value, f"{key}.{category}", category, texts["other"])

    def inline(self, unit: Unit, element: Element) -> Inline:
        return read_inline(element, unit, keep_space=True)

    def add_text(self, unit: Unit, element: Element, key: str, inline: Inline) -> None:
        if not element.is_one_tag and (key.count(".") != 1 or any(map(str.isalpha, _bare(inline.text)))):
            self.add(
                (element.inside, element.outside),
                inline.text,
                place=f"{self.markup.name}:{element.line}",
                key=key,
                write=lambda text, _: to_xml(text, Inline(text, (), inline.spellings)),
            )

    def add_form(self, unit: Unit, label: Element, last: Element, key: str, category: str, inline: Inline) -> None:
        """Add a form that the file does not have, after the last one."""
        start = self.markup.utf8.rfind(b"\n", 0, label.start) + 1
        gap = "\n" + self.markup.utf8[start : label.start].decode()
        inner = unit.slice(label.end, last.start).replace("\r", "")
        self.add(
            (last.end, last.end),
            inline.text,
            place=f"{self.markup.name}:{last.line}",
            key=key,
            write=lambda text, _: to_xml(text, Inline(text, (), inline.spellings)),
            around=(f"{gap if not gap.strip() else ''}<key>{category}</key>{inner}<string>", "</string>"),
        )


def members(element: Element, name: str) -> Iterator[tuple[str, Element, Element]]:
    """Yield the names of a ``dict``, with the elements of name and value.

    Raises:
        DataError: a name without a value.
    """
    children = [child for child in element.children if isinstance(child, Element)]
    if len(children) % 2 or any(child.name != "key" for child in children[::2]):
        raise DataError(f"{name}:{element.line}: not a dict of keys that each have a value")
    for label, value in zip(children[::2], children[1::2], strict=True):
        yield "".join(child for child in label.children if isinstance(child, str)), label, value


def _bare(text: str) -> str:
    """Return a format without its variables (``%#@files@``) and conversions."""
    return without_placeholders(text, find_placeholders(text))
