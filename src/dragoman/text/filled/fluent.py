"""Fluent files (``.ftl``): messages, terms and their attributes; placeables are code, and variants are texts.

Brand names (terms that begin with ``-brand`` or ``-vendor``) stay. A selection by plural category gets the categories
of the target language.
"""

import re
from collections.abc import Sequence
from typing import Any

from dragoman.errors import DataError
from dragoman.text.filled.plural_categories import CATEGORIES, plural_categories
from dragoman.text.filled.spans import SpannedDocument, TextFile, Write

_BRANDS = ("brand", "vendor")
_INDENT = "    "
_SPACE = " \r\n"
"""White space of Fluent; no-break and ideographic spaces are characters of a text."""
_SPECIAL = re.compile(r"^[\[.*]")
"""Beginnings of a line that would end a pattern."""


class FluentDocument(SpannedDocument):
    """Slots of a Fluent file: one per pattern, or per variant of a selection."""

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a Fluent file; selections get the plural categories of the ``target`` language.

        Raises:
            DataError: an entry that is not Fluent; the message names its line.
        """
        from fluent.syntax import FluentParser, ast

        self.ast: Any = ast
        self.text_file = TextFile(raw, name)
        super().__init__(self.text_file)
        self.categories = plural_categories(target)
        self.notes_here: tuple[str, ...] = ()
        """Comment on the entry that is being read."""
        text = self.text_file.text.replace("\r\n", "\n")
        self.shifts = [found.start() for found in re.finditer("\r\n", self.text_file.text)]
        for entry in FluentParser().parse(text).body:
            if isinstance(entry, ast.Junk):
                note = entry.annotations[0]
                at = note.span.start if note.span else entry.span.start  # pyright: ignore[reportOptionalMemberAccess]
                line = text.count("\n", 0, at) + 1
                raise DataError(f"{name}:{line}: not Fluent: {note.message}")
            if isinstance(entry, ast.Message | ast.Term):
                self.add_entry(entry)

    def at(self, position: int) -> int:
        """Return a position in the file for one in its text with plain line ends."""
        passed = 0
        for shift in self.shifts:
            if shift - passed >= position:
                break
            passed += 1
        return position + passed

    def add_entry(self, entry: Any) -> None:
        """Add the slots of a message or term, and of its attributes."""
        is_term = isinstance(entry, self.ast.Term)
        name = ("-" if is_term else "") + entry.id.name
        self.notes_here = (entry.comment.content,) if entry.comment else ()
        if entry.value is not None and not (is_term and entry.id.name.startswith(_BRANDS)):
            self.add_pattern(entry.value, name)
        for attribute in entry.attributes:
            if not is_term:  # a term's attributes are for selecting
                self.add_pattern(attribute.value, f"{name}.{attribute.id.name}")

    def add_pattern(self, pattern: Any, key: str) -> None:
        """Add the slot of a pattern, or those of its selections."""
        elements = pattern.elements
        selections = [e.expression for e in elements if self._is_selection(e)]
        words = any(isinstance(e, self.ast.TextElement) and any(map(str.isalpha, e.value)) for e in elements)
        if not selections or words:
            self.add_text(pattern, key)
            if selections:
                self.notes.append(
                    f"{self.text_file.place(self.at(pattern.span.start))}: the variants inside of the sentence "
                    "are kept and not translated: move the sentence into each variant"
                )
            return
        for number, selection in enumerate(selections):
            path = key if len(selections) == 1 else f"{key}.{number}"
            forms = {_name(variant): variant for variant in selection.variants}
            by_category = set(forms) <= set(CATEGORIES) and len(forms) > 1
            texts = {name: self.text_of(variant.value)[0] for name, variant in forms.items()}
            for name, variant in forms.items():
                source = forms[self.categories.form_of(name, texts)] if by_category else variant
                if source is variant or self.is_nested(source):
                    self.add_pattern(variant.value, f"{path}.{name}")
                else:
                    self.add_text(variant.value, f"{path}.{name}", source.value)
            if by_category:
                for category in self.categories.missing(forms):
                    self.add_variant(forms["other"], category, f"{path}.{category}")

    def add_text(self, pattern: Any, key: str, source: Any = None) -> None:
        """Add the slot of a pattern as one text, with its placeables as code; that of ``source``, if given."""
        text, codes = self.text_of(source or pattern)
        start, end = self.at(pattern.span.start), self.at(pattern.span.end)
        raw = self.text_file.text[start:end]
        start += len(raw) - len(raw.lstrip(_SPACE))  # the indentation, where the pattern begins on a line of its own
        self.add(
            (start, end),
            text,
            place=self.text_file.place(start),
            key=key,
            codes=codes,
            write=self.writer(start),
            notes=self.notes_here,
        )

    def writer(self, start: int, *, new: bool = False) -> Write:
        """Return the function that writes a pattern.

        Args:
            start: position of the pattern, or of the default variant before which a new one is written.
        """
        line = self.text_file.text[self.text_file.text.rfind("\n", 0, start) + 1 : start]
        alone = not new and not line.strip()  # on a line of its own
        indent = line if alone else line[: len(line) - len(line.lstrip())] + _INDENT

        def write(text: str, codes: Sequence[str]) -> str:
            pattern = written(text, codes, self.text_file.line_end, indent)
            return _SPECIAL.sub(r'{"\g<0>"}', pattern) if alone else pattern

        return write

    def text_of(self, pattern: Any) -> tuple[str, tuple[str, ...]]:
        """Return the text of a pattern, each paragraph on one line, and its placeables as they are written."""
        file = self.text_file.text
        parts, codes = [], []
        for element in pattern.elements:
            if isinstance(element, self.ast.TextElement):
                parts.append(re.sub(r"(?<![\n ]) *\n *(?![\n ])", " ", element.value))
            else:
                codes.append(file[self.at(element.span.start) : self.at(element.span.end)])
                parts.append(codes[-1])
        return "".join(parts).strip(_SPACE), tuple(codes)

    def add_variant(self, default: Any, category: str, key: str) -> None:
        """Add a variant that the file does not have, before the default one."""
        file, start = self.text_file.text, self.at(default.span.start)
        if self.is_nested(default):
            return
        text, codes = self.text_of(default.value)
        line = file.rfind("\n", 0, start) + 1
        indent = file[line:start] if not file[line:start].strip() else _INDENT
        self.add(
            (start, start),
            text,
            place=self.text_file.place(start),
            key=key,
            codes=codes,
            write=self.writer(start, new=True),
            notes=self.notes_here,
            around=(f" [{category}] ", f"{self.text_file.line_end}{indent}"),
        )

    def is_nested(self, variant: Any) -> bool:
        """Return True if a variant holds a selection."""
        return any(self._is_selection(element) for element in variant.value.elements)

    def _is_selection(self, element: Any) -> bool:
        return isinstance(element, self.ast.Placeable) and isinstance(element.expression, self.ast.SelectExpression)


def _name(variant: Any) -> str:
    return variant.key.name if hasattr(variant.key, "name") else variant.key.value


def written(text: str, codes: Sequence[str], line_end: str, indent: str) -> str:
    """Return a text as a pattern: placeables as they are, other braces as strings in placeables.

    It is on one line, but for blank lines between paragraphs, after which the text is indented.
    """
    remaining, parts, at = list(codes), [], 0
    own = map(re.escape, sorted(set(codes), key=len, reverse=True))
    for found in re.finditer("|".join([*own, r"[{}]", r"\s*\n\s*"]), text):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[0] in remaining:
            remaining.remove(found[0])
            parts.append(found[0])
        elif found[0] in "{}":
            parts.append(f'{{"{found[0]}"}}')
        elif (count := found[0].count("\n")) == 1:
            parts.append(" ")
        else:
            parts.append(line_end * count + indent)
            if special := _SPECIAL.match(text[at:]):
                parts.append(f'{{"{special[0]}"}}')
                at += 1
    return "".join([*parts, text[at:]])
