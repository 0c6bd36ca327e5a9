"""PO file to be translated: its untranslated entries are slots, and filling them changes nothing else in it."""

import codecs
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from dragoman.errors import DataError
from dragoman.text.document import Edit, FillableDocument, Filling, Slot, splice
from dragoman.text.filled.po_header import PoHeader
from dragoman.text.formats.po import Catalogue, PoEntry

_LIMIT = re.compile(r"\bmax-length:\s*(\d{1,9})\b")  # a flag that Weblate defined
WIDTH = 79
"""Columns of a line, where the file wraps its own strings."""


class PoDocument(FillableDocument):
    """Slots of a PO file: one per entry, or per plural form."""

    bilingual = True

    def __init__(self, raw: bytes, name: str, language: str | None = None):
        """Read a PO file.

        Args:
            language: target language; gives the number of plural forms where the header does not.

        Raises:
            DataError: it cannot be read as PO; the message names file and line.
        """
        super().__init__()
        self.catalogue = Catalogue(raw, name)
        self.header = PoHeader(self.catalogue, language)
        self.rule = self.header.rule
        self.notes += self.header.notes
        self.homes: list[tuple[PoEntry, int]] = []
        """Entry and plural form of each slot."""
        for entry in self.catalogue.entries:
            for form in range(self.forms_of(entry)):
                self.add(entry, form)

    def forms_of(self, entry: PoEntry) -> int:
        """Return the number of forms to translate; add a note where the file does not agree with the header."""
        if entry.plural is None:
            return 1
        if self.rule is None:
            note = self.header.without_plurals
            self.notes += [note] * (note not in self.notes)
            return len(entry.forms)
        if any(form.text for form in entry.forms[self.rule.count :]):
            self.notes.append(
                f"{self.catalogue.name}:{entry.line}: has {len(entry.forms)} plural forms, the header allows "
                f"{self.rule.count}: the others are left as they are"
            )
        return self.rule.count

    def add(self, entry: PoEntry, form: int) -> None:
        """Add the slot of a form, unless its source is blank."""
        text = entry.source_of(form, self.rule)
        if text.strip():
            place = f"{self.catalogue.name}:{entry.line}" + (f" (plural form {form})" if entry.plural else "")
            there = entry.forms[form].text if form < len(entry.forms) else ""
            limit = next((int(found[1]) for c in entry.flags if (found := _LIMIT.search(c[0]))), None)
            key = "\x04".join(value.text for value in (entry.context, entry.source) if value)
            self.slots.append(
                Slot(
                    place,
                    text,
                    filled=bool(there),
                    key=f"{key}[{form}]" if entry.plural else key,
                    translation=there,
                    fuzzy=entry.fuzzy and bool(there),
                    limit=limit,
                    notes=entry.notes,
                )
            )
            self.homes.append((entry, form))

    def slots_to_review(self, fillings: Mapping[int, Filling]) -> set[int]:
        """Return the slots of all entries that are fuzzy afterwards: gettext cannot mark a single plural form."""
        by_entry = self.by_entry(fillings)
        return {i for i in fillings if self.stays_doubtful(entry := self.homes[i][0], by_entry[id(entry)])}

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        by_entry = self.by_entry(fillings)
        entries = {id(entry): entry for entry, _ in self.homes}
        edits = [edit for key, forms in by_entry.items() for edit in self.edits(entries[key], forms)]
        if not edits:
            return self.encoded(self.catalogue.text, self.catalogue.charset)
        charset = self.charset_of(edits)
        has_plurals = any(entries[key].plural for key in by_entry)
        fields = self.header.missing(has_plurals=has_plurals, charset=charset)
        edits += self.header.edits(fields, self.line_end_after(0))
        if self.catalogue.header and fields and self.header.is_template and self.header.language:
            edits += self.unmarked(self.catalogue.header)
        return self.encoded(splice(self.catalogue.text, edits), charset or self.catalogue.charset)

    def by_entry(self, fillings: Mapping[int, Filling]) -> dict[int, dict[int, Filling]]:
        """Group the fillings by the identity of their entry, then by form."""
        found: dict[int, dict[int, Filling]] = defaultdict(dict)
        for number, filling in fillings.items():
            entry, form = self.homes[number]
            found[id(entry)][form] = filling
        return found

    def stays_doubtful(self, entry: PoEntry, fillings: Mapping[int, Filling]) -> bool:
        """Return True if an entry is fuzzy after it was filled.

        It is if a filling needs review; if it was fuzzy and a form remains, which translates another source; or if a
        form is left empty, since a program would show nothing for it.
        """
        stays = [form.text for number, form in enumerate(entry.forms) if number not in fillings]
        lacks = entry.plural is not None and bool(self.rule) and len(fillings) + sum(map(bool, stays)) < self.rule.count
        return any(filling.review for filling in fillings.values()) or (entry.fuzzy and any(stays)) or lacks

    def charset_of(self, edits: list[Edit]) -> str | None:
        """Return the charset that the header must newly declare, or None: a template names none, and ASCII may not
        suffice."""
        declared = self.catalogue.fields.get("content-type", "").lower()
        ascii_alone = all(edit.new.isascii() for edit in edits) and self.catalogue.text.isascii()
        if "charset=charset" in declared or ("charset=" not in declared and not ascii_alone):
            return "UTF-8"
        is_ascii = codecs.lookup(self.catalogue.charset).name == "ascii"
        return "UTF-8" if is_ascii and not ascii_alone else None

    def edits(self, entry: PoEntry, fillings: Mapping[int, Filling]) -> Iterator[Edit]:
        """Yield the edits of one entry: its strings, surplus forms and fuzzy mark."""
        last = entry.forms[-1]
        line_end = self.line_end_after(last.end)
        wraps = _wraps(entry, self.catalogue.text)
        added = ""
        for form in range(max(*fillings, len(entry.forms) - 1) + 1):
            text = fillings[form].text if form in fillings else ""
            new = _quoted(text, len(f"msgstr[{form}] " if entry.plural else "msgstr "), wraps, line_end)
            if form >= len(entry.forms):
                added += f"{line_end}msgstr[{form}] {new}"
            elif form in fillings:
                yield Edit(entry.forms[form].spans[0][0], entry.forms[form].end, new)
        if added:
            yield Edit(last.end, last.end, added)
        yield from self.without_surplus(entry)
        if self.stays_doubtful(entry, fillings):
            yield from self.marked(entry, line_end)
        else:
            yield from self.unmarked(entry)

    def without_surplus(self, entry: PoEntry) -> Iterator[Edit]:
        """Remove empty forms that the language does not have: a template has two, and msgfmt refuses them."""
        surplus = entry.forms[self.rule.count :] if entry.plural and self.rule else []
        if self.rule and surplus and not any(form.text for form in surplus):
            yield Edit(entry.forms[self.rule.count - 1].end, surplus[-1].end, "")

    def marked(self, entry: PoEntry, line_end: str) -> Iterator[Edit]:
        """Mark an entry as fuzzy."""
        if entry.fuzzy:
            return
        if entry.flags:
            yield Edit(at := entry.flags[0].start() + len("#,"), at, " fuzzy,")
        else:
            yield Edit(entry.start, entry.start, f"#, fuzzy{line_end}")

    def unmarked(self, entry: PoEntry) -> Iterator[Edit]:
        """Remove the fuzzy mark of an entry, and the source text that its old translation was of."""
        for comment in entry.previous if entry.fuzzy else ():
            yield Edit(comment.start(), comment.end() + 1, "")  # with its line end
        for comment in entry.flags:
            remaining = re.sub(r"(?<=,)[ \t]*fuzzy[ \t]*(,|(?=\r?$))", "", comment[0])
            if remaining.rstrip() == "#,":
                yield Edit(comment.start(), comment.end() + 1, "")  # with its line end
            elif remaining != comment[0]:
                tidy = re.sub(r"^#,(?=\S)", "#, ", remaining)  # readers other than gettext's need the space
                yield Edit(*comment.span(), re.sub(r",(?=\r?$)", "", tidy))

    def line_end_after(self, at: int) -> str:
        """Return the line end in use after a position."""
        text = self.catalogue.text
        end = text.find("\n", at)
        end = text.rfind("\n", 0, at) if end < 0 else end
        return "\r\n" if text[end - 1 : end] == "\r" else "\n"

    def encoded(self, text: str, charset: str) -> bytes:
        """Encode the whole file.

        Raises:
            DataError: its charset lacks a character that a translation needs.
        """
        try:
            return text.encode(charset)
        except UnicodeEncodeError as error:
            character = text[error.start]
            raise DataError(
                f"{self.catalogue.name}: {charset}, its encoding, has no {character!r}, which a translation needs: "
                "convert the file with msgconv -t UTF-8"
            ) from None


# ---- strings as PO writes them --------------------------------------------------------------------


def _wraps(entry: PoEntry, text: str) -> bool:
    """Return True if a string of the source is broken elsewhere than at its own line ends."""
    for value in (entry.source, entry.plural):
        pieces = [text[start + 1 : end - 1] for start, end in value.spans[:-1]] if value else []
        if any(piece and not piece.endswith("\\n") for piece in pieces):
            return True
    return False


def _quoted(text: str, used: int, wraps: bool, line_end: str) -> str:
    """Quote ``text``: on one line or, where it has line ends or is too long for a file that wraps, on several.

    Args:
        used: columns that the keyword takes on the first line.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    if len(lines) < 2 and not (wraps and used + len(_escaped(text)) + 2 > WIDTH):
        return f'"{_escaped(text)}"'
    if wraps:
        lines = [piece for line in lines for piece in _folded(line)]
    return line_end.join(['""', *(f'"{_escaped(line)}"' for line in lines)])


def _folded(line: str) -> Iterator[str]:
    piece = ""
    for word in re.findall(r"\s*\S+\s*|\s+", line):
        if piece and len(_escaped(piece + word.rstrip())) + 2 > WIDTH:
            yield piece
            piece = ""
        piece += word
    yield piece


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: _ESCAPES.get(found[0]) or f"\\{ord(found[0]):03o}", text)


_ESCAPES = dict(zip('\\"\n\t\r\a\b\f\v', ("\\" + letter for letter in '\\"ntrabfv'), strict=True))
_SPECIAL = re.compile(r'[\\"\x00-\x1f\x7f]')
