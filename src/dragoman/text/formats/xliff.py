"""XLIFF 1.2 and 2.x: bilingual files of translation tools, read as pairs or filled in.

A segment is a ``trans-unit`` (1.2) or a ``segment`` of a ``unit`` (2.x): a source, perhaps a target, and a state that
tells how far the target can be trusted.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dragoman.config import config
from dragoman.errors import DataError
from dragoman.text.compressed import open_bytes
from dragoman.text.document import Edit, FillableDocument, Filling, Slot, SlotRule
from dragoman.text.formats.inline import Inline, is_blank, read_inline, to_xml
from dragoman.text.formats.markup import CHUNK, Element, MarkupSource, Unit, as_utf8, units, with_attribute
from dragoman.text.formats.plurals import same_language
from dragoman.text.formats.xliff_rules import MODULES, ModuleRules
from dragoman.text.lines import AnnotatedPair, Pair


@config
class Xliff:
    """Translated units of an XLIFF file."""

    path: str
    """Path of an .xlf or .xliff file; units that are untranslated, or wait for review, are skipped."""


EMPTY = {"new", "needs-translation"}
"""States of a target (1.2) that holds no translation yet, but perhaps a copy of the source."""
UNSURE = EMPTY | {
    "initial",
    "needs-adaptation",
    "needs-l10n",
    "needs-review-adaptation",
    "needs-review-l10n",
    "needs-review-translation",
}
"""States of a target that still needs review."""
APPROVED = {"final", "signed-off"}


class Segment(NamedTuple):
    """Segment of a file, with the elements around it."""

    unit: Unit
    modules: ModuleRules
    """Rules of the modules in the file so far."""
    holder: Element
    """Element that holds source and target: the unit itself (1.2) or one of its segments (2.x)."""
    source: Element
    target: Element | None

    @property
    def is_version_2(self) -> bool:
        return self.unit.element.name == "unit"

    @property
    def state(self) -> str:
        """Return the state of the target."""
        bearer = self.holder if self.is_version_2 else self.target
        return bearer.attributes.get("state", "") if bearer else ""

    @property
    def locked(self) -> bool:
        """Return True for an approved target."""
        return self.state in APPROVED or self.holder.attributes.get("approved") == "yes"

    @property
    def sentences(self) -> list[Element]:
        """Return the sentences of the source (1.2, ``seg-source``) if they cover all of it, and a translation, if there
        is one, is split in the same way."""
        around = None if self.is_version_2 else self.holder.find("seg-source")
        found = _sentences(around) if around else {}
        if any(sentence.is_one_tag for sentence in found.values()):
            return []
        if self.target is None or self.state in EMPTY or is_blank(self.target):
            return list(found.values())
        translated = _sentences(self.target)
        return list(found.values()) if translated and translated.keys() <= found.keys() else []

    @property
    def parts(self) -> list[Element]:
        """Return what is translated, each on its own: the sentences of the source, or all of it."""
        return self.sentences or [self.source]

    def translation(self, part: Element) -> Element | None:
        """Return the element with the translation of a part; None if there is none yet, but perhaps a copy of it."""
        if self.target is None or self.state in EMPTY:
            return None
        found = self.target if part is self.source else _sentences(self.target).get(part.attributes.get("mid"))
        if found is None or (is_blank(found) and not is_blank(part)):
            return None
        text = self.inline(found).text
        copied = self.state == "initial" and text == self.inline(part).text
        return found if text.strip() and not copied else None

    def inline(self, element: Element) -> Inline:
        """Return the text of an element."""
        return read_inline(element, self.unit, keep_space=self.inherited("xml:space", element) == "preserve")

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes on the unit, but for those on its translation."""
        around = self.unit.element.find("notes") if self.is_version_2 else self.unit.element
        found = around.all("note") if around else ()
        kept = [
            note
            for note in found
            if "target" not in (note.attributes.get("annotates"), note.attributes.get("appliesTo"))
        ]
        return tuple(text for note in kept if (text := note.text.strip()))

    def inherited(self, attribute: str, element: Element) -> str | None:
        """Return an attribute's value on the innermost element that has it."""
        return self.unit.inherited(attribute, self.holder, element)


def _sentences(element: Element) -> dict[str | None, Element]:
    """Return the sentences that make up an element, by their ``mid``; none if there is anything between them."""
    found = [c for c in element.children if isinstance(c, Element) and c.attributes.get("mtype") == "seg"]
    covered = all(isinstance(c, str) and not c.strip() for c in element.children if c not in found)
    by_mid = {sentence.attributes.get("mid"): sentence for sentence in found}
    return by_mid if covered and len(by_mid) == len(found) else {}


def segments(pieces: Iterable[bytes], name: str) -> Iterator[Segment]:
    """Yield the segments to translate of a file in UTF-8."""
    modules = ModuleRules()
    for unit in units(pieces, name, "xliff", "trans-unit", "unit", *MODULES):
        if unit.element.name in MODULES:
            modules.add(unit)
            continue
        holders = unit.element.all("segment") if unit.element.name == "unit" else [unit.element]
        for holder in holders:
            source = holder.find("source")
            if source is not None and unit.inherited("translate", holder) != "no":
                yield Segment(unit, modules, holder, source, holder.find("target"))


def read_xliff(path: str) -> Iterator[Pair]:
    """Yield the translated segments of a file, or their sentences, tags in them written out.

    Raises:
        DataError: it cannot be read; the message names file and line.
    """
    with open_bytes(path) as file:
        for segment in segments(as_utf8(iter(lambda: file.read(CHUNK), b""), path), path):
            for part in segment.parts if segment.state not in UNSURE else ():
                source, translation = segment.inline(part).text, segment.translation(part)
                if source.strip() and translation is not None:
                    yield AnnotatedPair.of(source, segment.inline(translation).text, segment.notes)


# ---- as a document --------------------------------------------------------------------------------


class XliffDocument(FillableDocument):
    """XLIFF file to be translated: one slot per segment, or per sentence of it."""

    bilingual = True

    def __init__(self, raw: bytes, name: str, language: str | None = None):
        """Read an XLIFF file.

        Args:
            language: target language, to be declared where the file declares none.

        Raises:
            DataError: it cannot be read, or must declare the language of its targets; the message names file and line.
        """
        super().__init__()
        self.source = MarkupSource(raw, name)
        self.homes: list[Home] = []
        """Home of each slot."""
        for segment in segments([self.source.utf8], name):
            for element in segment.parts:
                original, translation = segment.inline(element), segment.translation(element)
                translated = segment.inline(translation).text if translation is not None else ""
                if original.text.strip():
                    place = f"{name}:{element.line}"
                    self.slots.append(
                        Slot(
                            place,
                            original.text,
                            original.codes,
                            filled=bool(translated),
                            locked=segment.locked,
                            key=f"{segment.unit.element.attributes.get('id', '')}|{original.text}",
                            translation=translated,
                            fuzzy=bool(translated) and segment.state in UNSURE,
                            limit=_limit(segment),
                            rules=_rules(segment) if element is segment.source else (),
                            notes=segment.notes,
                        )
                    )
                    self.homes.append(Home(segment, element, original))
        if not self.slots:
            self.notes.append(f"{name}: has no text to translate")
        unfilled = [home.segment for home, slot in zip(self.homes, self.slots, strict=True) if not slot.filled]
        self.languages = TargetLanguages(name, unfilled, language)
        self.notes += self.languages.notes

    def slots_to_review(self, fillings: Mapping[int, Filling]) -> set[int]:
        """Return the slots of all targets that are marked: a state applies to a whole target."""
        by_target = self.by_target(fillings)
        return {i for i in fillings if _is_doubtful(segment := self.homes[i].segment, by_target[segment.holder])}

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        by_target = self.by_target(fillings)
        chosen = {home.segment.holder: home.segment for home in (self.homes[number] for number in fillings)}
        edits = [edit for holder, new in by_target.items() for edit in _edits(chosen[holder], new)]
        return self.source.with_edits([*edits, *self.languages.edits(self.source, chosen.values())])

    def by_target(self, fillings: Mapping[int, Filling]) -> dict[Element, dict[Element, Filling]]:
        """Group the fillings, written as XML, by the holder of their target, then by the element that they
        translate."""
        found: dict[Element, dict[Element, Filling]] = defaultdict(dict)
        for number, filling in fillings.items():
            segment, element, original = self.homes[number]
            found[segment.holder][element] = filling._replace(text=to_xml(filling.text, original))
        return found


class Home(NamedTuple):
    """Element and segment of a slot's text."""

    segment: Segment
    element: Element
    """Source, or a sentence of it."""
    original: Inline


class TargetLanguages:
    """Languages that a file declares for its targets, and the one to be declared where it lacks one."""

    def __init__(self, name: str, unfilled: Sequence[Segment], language: str | None):
        """Compare the declared languages with the requested one.

        Raises:
            DataError: targets are to be added to a file of version 2 whose language is unknown.
        """
        self.language = language.strip().replace("_", "-") if language else None
        self.notes: list[str] = []
        for segment in unfilled:
            stated = _declaration(segment).stated
            if not stated and not self.language and segment.is_version_2:
                raise DataError(
                    f"{name}:{segment.unit.around[0].line}: XLIFF 2 with translations must name their language "
                    "(trgLang): name it with --target-language"
                )
            if stated and self.language and not self.replaces(segment) and not same_language(stated, self.language):
                note = f"{name}: declares translations in {stated}, not {self.language}: the declaration is kept"
                self.notes += [note] * (note not in self.notes)

    def replaces(self, segment: Segment) -> bool:
        """Return True if no target language is declared, or only a copy of the source's."""
        found = _declaration(segment)
        return not found.stated or (
            found.stated == found.source and not same_language(found.stated, self.language or found.stated)
        )

    def edits(self, source: MarkupSource, filled: Iterable[Segment]) -> Iterator[Edit]:
        """Declare the language on all elements that must carry it for the filled segments."""
        bearers = {(d := _declaration(s)).bearer.start: d for s in filled if self.language and self.replaces(s)}
        for bearer, attribute, *_ in bearers.values():
            tag = source.utf8[bearer.start : bearer.inside].decode()
            yield Edit(bearer.start, bearer.inside, with_attribute(tag, attribute, self.language or ""))


class _Declaration(NamedTuple):
    bearer: Element
    attribute: str
    stated: str
    source: str
    """Language of the source."""


def _declaration(segment: Segment) -> _Declaration:
    """Find where the language of a segment's target is declared."""
    if segment.is_version_2:
        bearer, attribute, source = segment.unit.around[0], "trgLang", "srcLang"
    else:
        around = segment.unit.around
        bearer = next((e for e in reversed(around) if e.name == "file"), around[0])
        attribute, source = "target-language", "source-language"
    attributes = bearer.attributes
    return _Declaration(bearer, attribute, attributes.get(attribute, ""), attributes.get(source, ""))


def _limit(segment: Segment) -> int | None:
    """Return the largest number of characters of a translation, where the unit states one (1.2)."""
    attributes = segment.holder.attributes
    width = attributes.get("maxwidth", "")
    return int(width) if width.isdecimal() and len(width) < 10 and attributes.get("size-unit") == "char" else None


def _rules(segment: Segment) -> tuple[SlotRule, ...]:
    """Return the rules of the modules of XLIFF 2 on a segment."""
    if not segment.is_version_2:
        return ()
    parts = list(segment.unit.element.all("segment", "ignorable"))
    texts = [
        _plain_text(part.find("target") or (part.find("source") if part.name == "ignorable" else None))
        for part in parts
    ]
    return segment.modules.of(segment.unit, texts, parts.index(segment.holder))


def _plain_text(element: Element | None) -> str:
    return element.text if element else ""


def _is_doubtful(segment: Segment, new: Mapping[Element, Filling]) -> bool:
    """Return True if a target needs review: one of its sentences does, or is left empty."""
    others = [s for s in segment.sentences if s not in new and segment.inline(s).text.strip()]
    lacks = any(segment.translation(sentence) is None or segment.state in UNSURE for sentence in others)
    return lacks or any(filling.review for filling in new.values())


def _content(segment: Segment, new: Mapping[Element, Filling]) -> str:
    """Return the content of a target: that of the source, or its sentences in the segmentation of the source, new or
    as they were."""
    if not segment.sentences:
        return new[segment.source].text
    around = segment.holder.find("seg-source")
    assert around
    parts, at = [], around.inside
    for sentence in segment.sentences:
        kept = None if sentence in new else segment.translation(sentence)
        if kept is not None:
            parts += [segment.unit.slice(at, sentence.start), segment.unit.slice(kept.start, kept.end)]
            at = sentence.end
        else:
            parts += [segment.unit.slice(at, sentence.inside), new[sentence].text if sentence in new else ""]
            at = sentence.outside
    return "".join([*parts, segment.unit.slice(at, around.outside)])


def _edits(segment: Segment, new: Mapping[Element, Filling]) -> Iterator[Edit]:
    content, review, unit, target = _content(segment, new), _is_doubtful(segment, new), segment.unit, segment.target
    if segment.is_version_2:
        yield _state(segment, "initial" if review else "translated")
    if target is None:
        yield _new_target(segment, content, review, new)
        return
    tag = _tag_with_state(unit.slice(target.start, target.inside), segment, review)
    tag = _with_qualifier(tag, segment, new)
    if target.is_one_tag:
        opened = re.sub(r"\s*/>$", ">", tag)
        yield Edit(target.start, target.end, f"{opened}{content}</{_qualified(tag)}>")
    else:
        yield Edit(target.start, target.outside, tag + content)


def _state(segment: Segment, state: str) -> Edit:
    """Set the state of a segment (2.x). A state of a tool of its own (``subState``) goes with the state it was in."""
    element = segment.holder
    tag = segment.unit.slice(element.start, element.inside)
    if state != segment.state:
        tag = re.sub(r"""\s+subState\s*=\s*("[^"]*"|'[^']*')""", "", tag)
    return Edit(element.start, element.inside, with_attribute(tag, "state", state))


def _tag_with_state(tag: str, segment: Segment, review: bool) -> str:
    if segment.is_version_2 or not (review or segment.state in UNSURE):
        return tag
    return with_attribute(tag, "state", "needs-review-translation" if review else "translated")


def _with_qualifier(tag: str, segment: Segment, new: Mapping[Element, Filling]) -> str:
    """Return a target's start tag with the mark of a translation memory (1.2), or without that of an earlier one."""
    complete = all(part in new for part in segment.parts if segment.inline(part).text.strip())
    if not segment.is_version_2 and complete and all(filling.remembered for filling in new.values()):
        return with_attribute(tag, "state-qualifier", "exact-match")
    return re.sub(r"""\s+state-qualifier\s*=\s*("[^"]*"|'[^']*')""", "", tag)


def _new_target(segment: Segment, content: str, review: bool, new: Mapping[Element, Filling]) -> Edit:
    """Return a target after the source (1.2: after its segmentation), laid out as the source is."""
    last = segment.holder.find("seg-source") or segment.source
    before = segment.unit.slice(segment.unit.element.start, segment.source.start)
    gap = re.search(r"\s*$", before)
    assert gap
    name = re.sub("source$", "target", _qualified(segment.unit.slice(segment.source.start, segment.source.inside)))
    tag = _with_qualifier(_tag_with_state(f"<{name}>", segment, review), segment, new)
    return Edit(last.end, last.end, f"{gap[0].replace(chr(13), '')}{tag}{content}</{name}>")


def _qualified(tag: str) -> str:
    """Return the name in a start tag, its prefix included."""
    found = re.match(r"<([^\s/>]+)", tag)
    assert found
    return found[1]
