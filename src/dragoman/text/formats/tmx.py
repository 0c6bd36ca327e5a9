"""TMX, translation memories: units with the same text in two or more languages."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from dragoman.config import config
from dragoman.errors import DataError
from dragoman.text.compressed import open_bytes
from dragoman.text.document import Edit, FillableDocument, Filling, Slot
from dragoman.text.formats.inline import Inline, read_inline, to_xml
from dragoman.text.formats.markup import CHUNK, Element, MarkupSource, Unit, as_utf8, units
from dragoman.text.lines import AnnotatedPair, Pair


@config
class Tmx:
    """Units of a TMX file with both languages."""

    path: str
    """Path of a .tmx file, plain, .gz or .zst; a unit that lacks one of the languages is skipped."""
    source: str | None = None
    """Source language as in the file: ``en`` also matches ``en-GB``, if there is no ``en``. None for the file's
    declared source language."""
    target: str | None = None
    """Target language. None where the file has only one besides the source."""


Variant = tuple[str, Element, Element]
"""Language, ``tuv`` and ``seg``."""


class TmxUnit(NamedTuple):
    """Translation unit with its variants."""

    unit: Unit
    declared: str | None
    """Source language declared by the unit or the file."""
    variants: list[Variant]

    def variant(self, language: str) -> Variant | None:
        """Return the first variant in a language: of exactly that name, or of a region of it, or of the language
        without region."""
        wanted = language.lower()
        general = wanted.partition("-")[0]
        criteria = (wanted.__eq__, lambda name: name.startswith(f"{wanted}-"), general.__eq__)
        return next((v for fits in criteria for v in self.variants if fits(v[0].lower())), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes on the unit."""
        return tuple(text for note in self.unit.element.all("note") if (text := note.text.strip()))

    def inline(self, segment: Element) -> Inline:
        """Return the text of a variant's segment."""
        return read_inline(segment, self.unit, keep_space=self.unit.inherited("xml:space", segment) == "preserve")


def entries(pieces: Iterable[bytes], name: str) -> Iterator[TmxUnit]:
    """Yield the units of a file in UTF-8, one at a time."""
    declared = None
    for unit in units(pieces, name, "tmx", "header", "tu"):
        attributes = unit.element.attributes
        if unit.element.name == "header":
            declared = _language(attributes.get("srclang"))
            continue
        variants = []
        for variant in unit.element.all("tuv"):
            language = variant.attributes.get("xml:lang") or variant.attributes.get("lang")
            segment = variant.find("seg")
            if not language or segment is None:
                lacks = "a <seg>" if language else "xml:lang"
                raise DataError(f"{name}:{variant.line}: a <tuv> without {lacks}: add it, or remove the unit")
            variants.append((language.replace("_", "-"), variant, segment))
        yield TmxUnit(unit, _language(attributes.get("srclang")) or declared, variants)


def _language(declared: str | None) -> str | None:
    return None if declared in (None, "", "*all*") else declared.replace("_", "-")


class Languages:
    """Choice of source and target language: the requested ones, or the only possible ones."""

    def __init__(self, name: str, source: str | None, target: str | None, naming: str = "'{}'"):
        """Store the request.

        Args:
            naming: format of an option that names a side's language, for messages.
        """
        self.name, self.naming = name, naming
        self.source, self.target = (language and language.replace("_", "-") for language in (source, target))
        self.found_target: str | None = None
        """Target language found so far."""

    def languages_of(self, entry: TmxUnit) -> tuple[str, str] | None:
        """Return the two languages of a unit; None if it lacks one that was not requested."""
        present = list(dict.fromkeys(language for language, *_ in entry.variants))
        source = self.source or entry.declared
        if source is None:
            raise self.undecided("source", present, entry)
        if self.target is not None:
            return source, self.target
        return (source, target) if (target := self.only_other(source, present, entry)) else None

    def only_other(self, source: str, present: list[str], entry: TmxUnit) -> str | None:
        found = entry.variant(source)
        others = [language for language in present if found is None or language != found[0]]
        if found is None or not others:
            return None
        if len(others) > 1 or (self.found_target and self.found_target != others[0]):
            raise self.undecided("target", list(dict.fromkeys([*filter(None, [self.found_target]), *others])), entry)
        self.found_target = others[0]
        return others[0]

    def undecided(self, side: str, choices: list[str], entry: TmxUnit) -> DataError:
        known = ", ".join(choices) or "none"
        return DataError(
            f"{self.name}:{entry.unit.element.line}: which language is the {side}, of {known}? Name it with "
            + self.naming.format(side)
        )


def read_tmx(cfg: Tmx) -> Iterator[Pair]:
    """Yield the pairs of units that have both languages, tags in them written out.

    Raises:
        DataError: it cannot be read, or its languages are ambiguous; the message names file and line.
    """
    languages = Languages(cfg.path, cfg.source, cfg.target)
    seen: dict[str, None] = {}
    paired = False
    with open_bytes(cfg.path) as file:
        for entry in entries(as_utf8(iter(lambda: file.read(CHUNK), b""), cfg.path), cfg.path):
            seen |= dict.fromkeys(language for language, *_ in entry.variants)
            if pair := _pair(entry, languages.languages_of(entry)):
                paired = True
                yield pair
    if seen and not paired:
        wanted = " and ".join(filter(None, [cfg.source, cfg.target])) or "two languages"
        raise DataError(f"{cfg.path}: no unit has {wanted}; the languages in it: {', '.join(seen)}")


def _pair(entry: TmxUnit, languages: tuple[str, str] | None) -> Pair | None:
    source, target = map(entry.variant, languages) if languages else (None, None)
    if source is None or target is None or source[1] is target[1] or _marks(target[1]):
        return None
    pair = AnnotatedPair.of(entry.inline(source[2]).text, entry.inline(target[2]).text, entry.notes)
    return pair if pair.source.strip() and pair.target.strip() else None


# ---- as a document --------------------------------------------------------------------------------

MARK = "x-needs-review"
"""Type of the property that marks a translation for review."""


class TmxDocument(FillableDocument):
    """TMX file to be translated: units with a source and no target, or an empty one, are slots."""

    bilingual = True

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a TMX file.

        Raises:
            DataError: it cannot be read, or its languages are ambiguous; the message names file and line.
        """
        super().__init__()
        self.source = MarkupSource(raw, name)
        found = list(entries([self.source.utf8], name))
        languages = Languages(name, source, target, "--{}-language")
        pairs = [languages.languages_of(entry) for entry in found]
        self.target = languages.target or languages.found_target
        if found and self.target is None:
            raise DataError(f"{name}: has no unit in two languages: name the one to add, as with --target-language de")
        self.homes: list[tuple[TmxUnit, Variant, Variant | None, Inline]] = []
        """Unit of each slot, the source in it, the target if there is one, and the source's text."""
        for entry, pair in zip(found, pairs, strict=True):
            original = entry.variant((pair or ("", ""))[0] or languages.source or entry.declared or "")
            if original and (text := entry.inline(original[2])).text.strip():
                there = entry.variant(self.target or "")
                if there and there[1] is original[1]:
                    there = None  # the target en-GB would match the source en
                if original[0].lower() == (self.target or "").lower():
                    raise DataError(
                        f"{name}:{original[1].line}: {original[0]} is the source and {self.target} the target: name "
                        "others with --source-language and --target-language"
                    )
                translation = entry.inline(there[2]).text if there else ""
                self.slots.append(
                    Slot(
                        f"{name}:{original[2].line}",
                        text.text,
                        text.codes,
                        filled=bool(translation.strip()),
                        key=text.text,
                        translation=translation,
                        fuzzy=bool(there and _marks(there[1])),
                        notes=entry.notes,
                    )
                )
                self.homes.append((entry, original, there, text))
        if not self.slots:
            self.notes.append(_nothing(name, found, languages.source))

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        return self.source.with_edits(
            edit for number, filling in fillings.items() for edit in self.edits(number, filling)
        )

    def edits(self, number: int, filling: Filling) -> Iterator[Edit]:
        entry, (_, original, segment), there, text = self.homes[number]
        content = to_xml(filling.text, text)
        note = f'<prop type="{MARK}">yes</prop>' if filling.review else ""
        if there is None:
            start = entry.unit.element.start
            gap, inner = (_gap(entry.unit.slice(start, at)) for at in (original.start, segment.start))
            new = f"{gap}<tuv xml:lang={quoteattr(self.target or '')}>{inner * bool(note)}{note}{inner}"
            end = _gap(entry.unit.slice(start, original.outside))
            yield Edit(original.end, original.end, f"{new}<seg>{content}</seg>{end}</tuv>")
            return
        _, variant, empty = there
        marks = _marks(variant)
        note = "" if marks else note
        if not filling.review:
            yield from (Edit(mark.start, mark.end, "") for mark in marks)
        if empty.is_one_tag:
            yield Edit(empty.start, empty.end, f"{note}<seg>{content}</seg>")
        else:
            yield Edit(empty.start, empty.outside, f"{note}{entry.unit.slice(empty.start, empty.inside)}{content}")


def _marks(variant: Element) -> list[Element]:
    """Return the properties of a translation that mark it for review."""
    return [prop for prop in variant.all("prop") if prop.attributes.get("type") == MARK]


def _nothing(name: str, found: list[TmxUnit], source: str | None) -> str:
    """Return the note that explains why there is no text to translate."""
    present = list(dict.fromkeys(language for entry in found for language, *_ in entry.variants))
    source = source or next((entry.declared for entry in found if entry.declared), None)
    if not present:
        return f"{name}: has no units: there is nothing to translate in it"
    return (
        f"{name}: no unit has text in {source}, the source; the languages in it: {', '.join(present)}: name one with "
        "--source-language"
    )


def _gap(before: str) -> str:
    """Return the white space at the end."""
    return before[len(before.rstrip()) :].replace("\r", "")
