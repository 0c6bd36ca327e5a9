"""Translation files of Qt Linguist (``.ts``): a translation is added to each message that lacks one.

A translation that needs review keeps ``type="unfinished"``; others lose it. Obsolete messages stay.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dragoman.text.document import Edit, FillableDocument, Filling, Slot
from dragoman.text.filled.plural_categories import CATEGORIES
from dragoman.text.formats import plurals
from dragoman.text.formats.inline import Inline, read_inline, to_xml
from dragoman.text.formats.markup import Element, MarkupSource, Unit, check_root, units, with_attribute

_GONE = ("obsolete", "vanished")


class QtMessage(NamedTuple):
    """Message of a translation file."""

    unit: Unit
    element: Element
    source: Inline
    translation: Element | None

    @property
    def state(self) -> str:
        """Return the state of the translation: ``unfinished``, ``vanished``, ``obsolete``, or empty for a finished
        one."""
        return self.translation.attributes.get("type", "") if self.translation else "unfinished"

    @property
    def is_plural(self) -> bool:
        """Return True for a message with a form for each plural of the language."""
        return self.element.attributes.get("numerus") == "yes"

    def there(self) -> list[str]:
        """Return the translation in the file: one text, or one for each plural form."""
        if self.translation is None:
            return [""]
        if not self.is_plural:
            return [self.text_of(self.translation)]
        return [self.text_of(form) for form in self.translation.all("numerusform")] or [""]

    def text_of(self, element: Element) -> str:
        """Return the text of an element; the first variant by length if it has several."""
        variant = element.find("lengthvariant")
        return read_inline(variant or element, self.unit, keep_space=True).text


class QtDocument(FillableDocument):
    """Slots of a ``.ts`` file: one per message, or per plural form."""

    bilingual = True

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a ``.ts`` file.

        Args:
            target: language to be declared where the file declares none; gives the number of plural forms.

        Raises:
            DataError: not XML, or no file of Qt Linguist, such as one of TypeScript; the message names file and line.
        """
        super().__init__()
        self.markup, self.target = MarkupSource(raw, name), target
        check_root(self.markup, "TS", "a Qt translation file")
        self.root: Element | None = None
        self.homes: list[tuple[QtMessage, int]] = []
        """Message and plural form of each slot."""
        for unit in units([self.markup.utf8], name, "TS", "context", "message"):
            self.root = unit.around[0]
            context = "".join(_strings(unit.element.find("name"))) if unit.element.name == "context" else ""
            for element in unit.element.all("message") if unit.element.name == "context" else [unit.element]:
                self.add(unit, element, context)
        self.stated = self.root.attributes.get("language", "") if self.root else ""
        if self.stated and target and not plurals.same_language(self.stated, target):
            self.notes.append(f"{name}: declares translations in {self.stated}, not {target}: the declaration is kept")

    def add(self, unit: Unit, element: Element, context: str) -> None:
        """Add the slots of a message."""
        source = element.find("source")
        if source is None:
            return
        message = QtMessage(unit, element, read_inline(source, unit, keep_space=True), element.find("translation"))
        if message.state in _GONE or not message.source.text.strip():
            return
        there = message.there()
        comment = "".join(_strings(element.find("comment")))
        extra = element.find("extracomment")
        notes = tuple(note.strip() for note in (comment, extra.text if extra else "") if note.strip())
        count = _forms_of((self.root and self.root.attributes.get("language")) or self.target) or len(there)
        for form in range(count if message.is_plural else 1):
            text = there[form] if form < len(there) else ""
            self.slots.append(
                Slot(
                    f"{self.markup.name}:{source.line}",
                    message.source.text,
                    message.source.codes,
                    filled=bool(text.strip()),
                    key=f"{context}|{message.source.text}|{comment}" + (f"[{form}]" if message.is_plural else ""),
                    translation=text,
                    fuzzy=message.state == "unfinished" and bool(text.strip()),
                    notes=notes,
                )
            )
            self.homes.append((message, form))

    def slots_to_review(self, fillings: Mapping[int, Filling]) -> set[int]:
        """Return the slots of all messages that stay unfinished."""
        grouped = self.by_message(fillings)
        return {i for i in fillings if _is_doubtful(self.homes[i][0], grouped[self.homes[i][0].element.start])}

    def by_message(self, fillings: Mapping[int, Filling]) -> dict[int, dict[int, Filling]]:
        """Group the fillings by the position of their message, then by plural form."""
        found: dict[int, dict[int, Filling]] = defaultdict(dict)
        for number, filling in fillings.items():
            message, form = self.homes[number]
            found[message.element.start][form] = filling
        return found

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        chosen = {self.homes[number][0].element.start: self.homes[number][0] for number in fillings}
        edits = [_edit(chosen[start], forms) for start, forms in self.by_message(fillings).items()]
        if edits and self.target and self.root and not self.stated:
            tag = self.markup.utf8[self.root.start : self.root.inside].decode()
            new = with_attribute(tag, "language", self.target.replace("-", "_"))
            edits.append(Edit(self.root.start, self.root.inside, new))
        return self.markup.with_edits(edits)


def _strings(element: Element | None) -> Iterator[str]:
    return (child for child in (element.children if element else ()) if isinstance(child, str))


def _forms_of(language: str | None) -> int | None:
    """Return the number of plural forms that Qt has for a language; None if unknown."""
    from weblate_language_data.plural_tags import QT_PLURAL_TAGS

    tags = {name.lower(): found for name, found in QT_PLURAL_TAGS.items()}
    name = (language or "").replace("-", "_").lower()
    found = tags.get(name) or tags.get(name.partition("_")[0])
    return len(found) if found and set(found) <= set(CATEGORIES) else None


def _is_doubtful(message: QtMessage, forms: Mapping[int, Filling]) -> bool:
    there = message.there()
    lacks = any(not text.strip() and form not in forms for form, text in enumerate(there))
    stays = message.state == "unfinished" and any(text.strip() and form not in forms for form, text in enumerate(there))
    return lacks or stays or any(filling.review for filling in forms.values())


def _edit(message: QtMessage, forms: Mapping[int, Filling]) -> Edit:
    unit, there = message.unit, message.translation
    content = _content(message, forms)
    doubtful = _is_doubtful(message, forms)
    if there is None:
        source = message.element.find("source")
        assert source
        gap = re.search(r"\s*$", unit.slice(unit.element.start, source.start))
        assert gap
        mark = ' type="unfinished"' if doubtful else ""
        last = [child for child in message.element.children if isinstance(child, Element)][-1]
        return Edit(last.end, last.end, f"{gap[0].replace(chr(13), '')}<translation{mark}>{content}</translation>")
    tag = unit.slice(there.start, there.inside)
    tag = re.sub(r"\s*/>$", ">", tag)
    tag = (
        with_attribute(tag, "type", "unfinished")
        if doubtful
        else re.sub(r"""\s+type\s*=\s*("[^"]*"|'[^']*')""", "", tag)
    )
    return Edit(there.start, there.end, f"{tag}{content}</translation>")


def _content(message: QtMessage, forms: Mapping[int, Filling]) -> str:
    """Return the content of a translation: a text, or a form for each plural of the language."""

    def written(text: str, filling: Filling | None = None) -> str:
        codes = (filling.codes if filling else ()) or message.source.codes
        return to_xml(text, Inline(text, codes, message.source.spellings))

    if not message.is_plural:
        return written(forms[0].text, forms[0])
    there = message.there()
    count = max(len(there), *(form + 1 for form in forms))
    texts = [
        written(forms[i].text, forms[i]) if i in forms else written(there[i] if i < len(there) else "")
        for i in range(count)
    ]
    gap = _gap(message)
    end = gap.removesuffix("    ") if gap else ""
    return "".join(f"{gap}<numerusform>{text}</numerusform>" for text in texts) + end


def _gap(message: QtMessage) -> str:
    """Return the line end and indentation before a plural form."""
    if message.translation and (form := message.translation.find("numerusform")):
        before = message.unit.slice(message.translation.inside, form.start)
        return before.replace("\r", "") if not before.strip() else ""
    return ""
