"""JSON files of strings: nested keys, i18next plurals, Chrome's ``messages.json``, and application resource bundles.

Every string under a name, or in an array, is translated; numbers and names stay. In an ARB file and in Chrome's
messages, only the messages are, not their descriptions.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from dragoman.errors import DataError
from dragoman.text.document import Edit
from dragoman.text.filled.json_tree import JsonMember, JsonNode, JsonStrings, read_json_tree
from dragoman.text.filled.language_at_top import names_language, names_source
from dragoman.text.filled.plural_categories import CATEGORIES, plural_categories
from dragoman.text.filled.spans import SpannedDocument, TextFile, key_of

_SUFFIX = re.compile(rf"(?P<stem>.*?)(?P<mark>[_.])(?P<category>{'|'.join(CATEGORIES)})", re.DOTALL)


class JsonDocument(SpannedDocument):
    """Slots of a JSON file: one per string, or per branch of an ICU message."""

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a JSON file.

        Args:
            source, target: languages. Plurals get the categories of ``target``; the name of ``source`` is replaced
                where it is the only name at the top.

        Raises:
            DataError: not JSON, or no object or array; the message names file and line.
        """
        self.text_file = TextFile(raw, name)
        super().__init__(self.text_file)
        self.target, self.source = target, source
        self.categories = plural_categories(target)
        self.root = read_json_tree(self.text_file)
        self.strings = JsonStrings(self.text_file.text)
        self.numbered = not self.root.is_object
        if self.root.members is None:
            raise DataError(f"{name}:1: holds a single value: an object or an array of strings expected")
        self.read()

    def read(self) -> None:
        """Find the slots."""
        if _is_chrome(self.root):
            for member in self.root.members or ():
                notes = _texts_of(member.node, "description")
                self.add_string((member.name,), member.node.names["message"].node, notes=notes)
            return
        top = self.language_at_top()
        self.add_all(top or self.root, ())

    def language_at_top(self) -> JsonNode | None:
        """Return what is under the name of a language, if that is the only name; the source's becomes the target's."""
        members = self.root.members or []
        only = members[0] if self.root.is_object and len(members) == 1 else None
        if only is None or not only.node.is_object or not names_language(only.name, self.source, self.target):
            return None
        if self.target and names_source(only.name, self.source, self.target):
            end = self.text_file.text.index('"', only.start + 1)
            self.declarations.append(Edit(only.start + 1, end, self.strings.escaped(self.target)))
        return only.node

    def add_string(
        self, path: tuple[str, ...], node: JsonNode, text: str | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        """Add the slots of a string; ``text`` is translated in its place, if given."""
        assert node.value is not None
        self.add(
            (node.start + 1, node.end - 1),
            node.value if text is None else text,
            place=self.text_file.place(node.start),
            key=key_of(path),
            write=self.strings.escaped,
            icu=self.categories,
            notes=notes,
        )

    def add_all(self, node: JsonNode, path: tuple[str, ...]) -> None:
        """Add every string below a value, and the plural forms that the target language has besides."""
        found = list(_plurals(node))
        sources = {
            stem + category: forms[self.categories.form_of(category, forms)]
            for stem, _, forms in found
            for category in forms
        }
        for member in node.names.values() if node.is_object else node.members or ():
            here = (*path, member.name)
            if member.node.members is not None:
                self.add_all(member.node, here)
            elif member.node.value is None:
                start, end = member.node.start, member.node.end
                self.values[key_of(here)] = Edit(start, end, self.text_file.text[start:end])
            else:
                self.add_string(here, member.node, sources.get(member.name))
        for stem, last, forms in found:
            for category in self.categories.missing(forms):
                self.add_form(path, stem + category, last, forms["other"])

    def add_form(self, path: tuple[str, ...], name: str, last: JsonMember, text: str) -> None:
        """Add a plural form after the last one that there is."""
        file = self.text_file.text
        indent = file[file.rfind("\n", 0, last.start) + 1 : last.start]
        separator = f",{self.text_file.line_end}{indent}" if not indent.strip() else ", "
        colon = file[last.name_end : last.node.start]
        self.add(
            (last.node.end, last.node.end),
            text,
            place=self.text_file.place(last.node.start),
            key=key_of((*path, name)),
            write=self.strings.escaped,
            around=(f'{separator}"{self.strings.escaped(name)}"{colon}"', '"'),
        )


class ArbDocument(JsonDocument):
    """Slots of an application resource bundle: its messages, in ICU's format.

    Dart's ``Intl.plural`` takes ``zero``, ``one`` and ``two`` for the numbers themselves in every language, so these
    branches stay.
    """

    def read(self) -> None:
        self.categories = replace(self.categories, kept=("zero", "one", "two"))
        if not self.root.is_object:
            raise DataError(f"{self.file.name}:1: not a resource bundle: an object of messages expected")
        for member in self.root.members or ():
            if member.name == "@@locale" and member.node.value and self.target:
                new = self.strings.escaped(self.target.replace("-", "_"))
                self.declarations.append(Edit(member.node.start + 1, member.node.end - 1, new))
            if not member.name.startswith("@") and member.node.value is not None:
                about = self.root.names.get(f"@{member.name}")
                notes = _texts_of(about.node, "context", "description") if about and about.node.is_object else ()
                self.add_string((member.name,), member.node, notes=notes)


def _texts_of(node: JsonNode, *names: str) -> tuple[str, ...]:
    """Return the strings that an object has under these names."""
    return tuple(text for name in names if (text := node.text_of(name)) and text.strip())


def _is_chrome(root: JsonNode) -> bool:
    """Return True for the messages of a browser extension: objects that each have a ``message``."""
    members = root.members if root.is_object else None
    return bool(members) and all(
        member.node.text_of("message") is not None
        and set(member.node.names) <= {"message", "description", "placeholders", "hash", "example"}
        for member in members or ()
    )


def _plurals(node: JsonNode) -> Iterator[tuple[str, JsonMember, dict[str, str]]]:
    """Yield the plurals among an object's members: their stem, last member, and text by category.

    ``item_one`` and ``item_other`` have the stem ``item_``; where ``one`` and ``other`` are all the names of an object,
    the stem is empty.
    """
    found: dict[str, dict[str, str]] = {}
    last: dict[str, JsonMember] = {}
    for name, member in node.names.items():
        match = _SUFFIX.fullmatch(name)
        stem = match["stem"] + match["mark"] if match else "" if name in CATEGORIES else None
        if stem is not None and member.node.value is not None:
            found.setdefault(stem, {})[name.removeprefix(stem)] = member.node.value
            last[stem] = member
    for stem, forms in found.items():
        whole = stem or set(node.names) <= set(CATEGORIES)
        if whole and "other" in forms and len(forms) > 1 and not stem.endswith("ordinal_"):
            yield stem, last[stem], forms
