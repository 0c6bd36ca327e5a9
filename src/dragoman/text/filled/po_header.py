"""The header of a PO file to be filled: a template's fields get the values that gettext's tools need.

As ``msginit --no-translator`` does. A field that says something already is left to the byte, except that a template
(.pot) has the language and plural forms of the source, if any.
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
    """The header of a catalogue, and the fields that it lacks for translations into a language."""

    def __init__(self, catalogue: Catalogue, language: str | None):
        """
        Args:
            language: of the translations, as the user or the run names it.
        """
        self.catalogue = catalogue
        self.stated = catalogue.fields.get("language", "")
        if self.stated == "LANGUAGE":
            self.stated = ""
        self.is_template = catalogue.name.lower().endswith(".pot") or _is_template(catalogue.fields)
        asked = language.strip().replace("-", "_") if language else ""
        self.language = asked if self.is_template and asked else self.stated or asked
        """The language of the translations; empty where nothing tells."""
        stated, usual = plurals.parse(catalogue.fields.get("plural-forms") or _OPEN), plurals.of_language(self.language)
        is_of_source = self.is_template and bool(asked) and not plurals.same_language(asked, self.stated)
        self.rule = (usual or stated) if is_of_source else (stated or usual)
        """Plural forms of the translations; None where nothing tells."""
        self.states_rule = stated is not None and stated.same_as(self.rule)
        """Whether the header says so already."""
        self.notes: list[str] = list(self._notes(asked))

    def _notes(self, asked: str) -> Iterator[str]:
        name = self.catalogue.name
        if not self.catalogue.entries:
            yield f"{name}: has no entries: there is nothing to translate in it"
        elif not self.language and (self.is_template or not self.catalogue.header):
            found = "its header is a template's" if self.catalogue.header else "has no header"
            yield f"{name}: {found}, and nothing tells the language: name it with --target-language to complete it"
        if asked and self.stated and not self.is_template and not plurals.same_language(asked, self.stated):
            yield f"{name}: its header says Language: {self.stated}, not {asked}: that stays as it is"

    @property
    def without_plurals(self) -> str:
        """Return what to say where plural forms are needed and nothing tells how many there are."""
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
        """Return the fields to be set, by their names.

        Args:
            has_plurals: translations have plural forms.
            charset: to be declared; None where the one that is declared is right.
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
        """Return when and by whom the file was translated, where a template leaves that open."""
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
        """Set these fields: each in its place or, where there is none, after the last."""
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
        """All of a header whose fields do not stand on a line each."""
        entry = self.catalogue.header
        assert entry
        spans, text = entry.forms[0].spans, self.catalogue.text
        whole = "".join(text[start + 1 : end - 1] for start, end in spans)
        changed = {name.lower() for name in fields}
        kept = [line for line in whole.split("\\n") if line and line.partition(":")[0].strip().lower() not in changed]
        lines = [*kept, *(f"{name}: {value}" for name, value in fields.items())]
        return Edit(spans[0][0], spans[-1][1], line_end.join(['""', *(f'"{line}\\n"' for line in lines)]))


_OPEN = "nplurals=INTEGER; plural=EXPRESSION;"
_FIELD = re.compile(r'"(?P<name>[A-Za-z][\w-]*):(?:[^"\\]|\\[^n])*\\n"')


def _is_template(fields: dict[str, str]) -> bool:
    return "charset=charset" in fields.get("content-type", "").lower() or "nplurals=INTEGER" in fields.get(
        "plural-forms", ""
    )


def _now() -> str:
    """The time as PO-Revision-Date has it; ``SOURCE_DATE_EPOCH`` fixes it, for builds that are to be repeatable."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(fixed), UTC) if fixed.isdecimal() else datetime.now(UTC)
    return moment.strftime("%Y-%m-%d %H:%M%z")
