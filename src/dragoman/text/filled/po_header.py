"""Header of a PO file to be filled: fields of a template get the values that gettext's tools need.

It follows ``msginit --no-translator``. A field with a value is kept to the byte, except that in a template (.pot)
language and plural forms, if any, are those of the source.
"""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from dragoman.text.document import Edit
from dragoman.text.formats import plurals
from dragoman.text.formats.po import Catalogue

PLACEHOLDERS = {
    "PO-Revision-Date": "YEAR-MO-DA HO:MI+ZONE",
    "Last-Translator": "FULL NAME <EMAIL@ADDRESS>",
    "Language-Team": "LANGUAGE <LL@li.org>",
}
"""Values that xgettext writes where it knows none."""


class PoHeader:
    """Header of a catalogue, and the fields that it lacks for translations into a language."""

    def __init__(self, catalogue: Catalogue, language: str | None):
        """Read the header.

        Args:
            language: target language, as the user or the run names it.
        """
        self.catalogue = catalogue
        self.stated = catalogue.fields.get("language", "")
        if self.stated == "LANGUAGE":
            self.stated = ""
        self.is_template = catalogue.name.lower().endswith(".pot") or _is_template(catalogue.fields)
        requested = language.strip().replace("-", "_") if language else ""
        self.language = requested if self.is_template and requested else self.stated or requested
        """Language of the translations; empty where it is unknown."""
        stated, usual = (
            plurals.parse(catalogue.fields.get("plural-forms") or _OPEN),
            plurals.rule_of_language(self.language),
        )
        is_of_source = self.is_template and bool(requested) and not plurals.same_language(requested, self.stated)
        self.rule = (usual or stated) if is_of_source else (stated or usual)
        """Plural rule of the translations; None where it is unknown."""
        self.states_rule = stated is not None and stated.same_as(self.rule)
        """True if the header already declares ``rule``."""
        self.notes: list[str] = list(self._notes(requested))

    def _notes(self, requested: str) -> Iterator[str]:
        name = self.catalogue.name
        if not self.catalogue.entries:
            yield f"{name}: has no entries: there is nothing to translate in it"
        elif not self.language and (self.is_template or not self.catalogue.header):
            found = "its header is a template's" if self.catalogue.header else "has no header"
            yield f"{name}: {found}, and its language is unknown: name it with --target-language to complete it"
        if requested and self.stated and not self.is_template and not plurals.same_language(requested, self.stated):
            yield f"{name}: its header says Language: {self.stated}, not {requested}: the header is kept"

    @property
    def without_plurals(self) -> str:
        """Return the note for plurals in a file whose plural rule is unknown."""
        if self.language:
            return (
                f"{self.catalogue.name}: the plural forms of {self.language} are not known here, so plurals get the "
                "forms they have: write Plural-Forms into its header"
            )
        return (
            f"{self.catalogue.name}: no Plural-Forms in its header, so plurals get the forms they have: name the "
            "language with --target-language to have them filled in"
        )

    def missing(self, *, has_plurals: bool, charset: str | None) -> dict[str, str]:
        """Return the fields to be set, by name.

        Args:
            has_plurals: translations have plural forms.
            charset: charset to declare; None where the declared one is right.
        """
        if not (self.language or self.catalogue.header):
            return {}
        fields = self._people() if self.language and (self.is_template or not self.catalogue.header) else {}
        if self.language and not plurals.same_language(self.language, self.stated):
            fields["Language"] = self.language
        if charset or (not self.catalogue.header and self.language):
            fields["MIME-Version"] = "1.0"
            fields["Content-Type"] = f"text/plain; charset={charset or self.catalogue.charset}"
            fields["Content-Transfer-Encoding"] = "8bit"
        field = self._plural_forms(has_plurals)
        return fields | ({"Plural-Forms": field} if field else {})

    def _people(self) -> dict[str, str]:
        """Return date and translator fields where a template leaves them open."""
        values = {
            "PO-Revision-Date": _now(),
            "Last-Translator": "Automatically generated",
            "Language-Team": "none",
        }
        found = self.catalogue.fields
        return {name: value for name, value in values.items() if found.get(name.lower()) in (None, PLACEHOLDERS[name])}

    def _plural_forms(self, has_plurals: bool) -> str | None:
        wanted = has_plurals or "plural-forms" in self.catalogue.fields
        return plurals.field_of(self.language) if wanted and not self.states_rule else None

    def edits(self, fields: dict[str, str], line_end: str) -> Iterator[Edit]:
        """Set these fields: each in its place, or after the last where there is none."""
        if not fields:
            return
        entry, text = self.catalogue.header, self.catalogue.text
        lines = [f'"{name}: {value}\\n"' for name, value in fields.items()]
        if entry is None:
            start = int(text.startswith("\ufeff"))
            yield Edit(start, start, line_end.join(['msgid ""', 'msgstr ""', *lines, "", ""]))
            return
        spans = entry.forms[0].spans
        pieces = [(span, _FIELD.fullmatch(text[slice(*span)])) for span in spans]
        if not all(field for (start, end), field in pieces if end - start > 2):
            yield self._rewritten(fields, line_end)
            return
        places = {field["name"].lower(): span for span, field in pieces if field}
        added = ""
        for (name, _), line in zip(fields.items(), lines, strict=True):
            if name.lower() in places:
                yield Edit(*places[name.lower()], line)
            else:
                added += line_end + line
        if added:
            yield Edit(spans[-1][1], spans[-1][1], added)

    def _rewritten(self, fields: dict[str, str], line_end: str) -> Edit:
        """Rewrite the whole header if its fields are not on one line each."""
        entry = self.catalogue.header
        assert entry
        spans, text = entry.forms[0].spans, self.catalogue.text
        header = "".join(text[start + 1 : end - 1] for start, end in spans)
        changed = {name.lower() for name in fields}
        unchanged = [
            line for line in header.split("\\n") if line and line.partition(":")[0].strip().lower() not in changed
        ]
        lines = [*unchanged, *(f"{name}: {value}" for name, value in fields.items())]
        return Edit(spans[0][0], spans[-1][1], line_end.join(['""', *(f'"{line}\\n"' for line in lines)]))


_OPEN = "nplurals=INTEGER; plural=EXPRESSION;"
_FIELD = re.compile(r'"(?P<name>[A-Za-z][\w-]*):(?:[^"\\]|\\[^n])*\\n"')


def _is_template(fields: dict[str, str]) -> bool:
    return "charset=charset" in fields.get("content-type", "").lower() or "nplurals=INTEGER" in fields.get(
        "plural-forms", ""
    )


def _now() -> str:
    """Return the time as PO-Revision-Date writes it; ``SOURCE_DATE_EPOCH`` fixes it for reproducible builds."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(fixed), UTC) if fixed.isdecimal() else datetime.now(UTC)
    return moment.strftime("%Y-%m-%d %H:%M%z")
