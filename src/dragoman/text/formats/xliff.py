"""XLIFF 1.2 and 2.x: bilingual files of translation tools, read as pairs or filled in.

A segment is a ``trans-unit`` (1.2) or a ``segment`` of a ``unit`` (2.x): a source, perhaps a target, and a state that
says how far the target is to be trusted.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from dragoman.config import config
from dragoman.text.filled.slots import Document, Edit, Filling, Slot
from dragoman.text.formats.compressed import open_bytes
from dragoman.text.formats.lines import Pair
from dragoman.text.formats.markup import (
    CHUNK,
    Element,
    Inline,
    Source,
    Unit,
    as_utf8,
    inline,
    units,
    with_attribute,
    written,
)


@config
class Xliff:
    path: str
    """A .xlf or .xliff file; units that are untranslated, or wait for review, are passed over."""


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
"""States of a target that a person has yet to look at."""
APPROVED = {"final", "signed-off"}


class Segment(NamedTuple):
    unit: Unit
    holder: Element
    """What holds source and target: the unit itself (1.2) or one of its segments (2.x)."""
    source: Element
    target: Element | None

    @property
    def is_version_2(self) -> bool:
        return self.unit.element.name == "unit"

    @property
    def state(self) -> str:
        bearer = self.holder if self.is_version_2 else self.target
        return bearer.attributes.get("state", "") if bearer else ""

    @property
    def locked(self) -> bool:
        return self.state in APPROVED or self.holder.attributes.get("approved") == "yes"

    def inline(self, element: Element) -> Inline:
        return inline(element, self.unit, keep_space=self.inherited("xml:space", element) == "preserve")

    def inherited(self, attribute: str, element: Element) -> str | None:
        return self.unit.inherited(attribute, self.holder, element)


def segments(pieces: Iterable[bytes], name: str) -> Iterator[Segment]:
    """What is to be translated of a file in UTF-8."""
    for unit in units(pieces, name, "xliff", "trans-unit", "unit"):
        holders = unit.element.all("segment") if unit.element.name == "unit" else [unit.element]
        for holder in holders:
            source = holder.find("source")
            if source is not None and unit.inherited("translate", holder) != "no":
                yield Segment(unit, holder, source, holder.find("target"))


def read_xliff(path: str) -> Iterator[Pair]:
    """The translated segments of a file, tags in them written out.

    Raises:
        DataError: it cannot be read; the message names file and line.
    """
    with open_bytes(path) as file:
        for segment in segments(as_utf8(iter(lambda: file.read(CHUNK), b""), path), path):
            if segment.target is not None and segment.state not in UNSURE:
                source, target = segment.inline(segment.source).text, segment.inline(segment.target).text
                if source.strip() and target.strip():
                    yield Pair(source, target)


# ---- as a document --------------------------------------------------------------------------------


class XliffDocument(Document):
    def __init__(self, raw: bytes, name: str):
        """Raises:
        DataError: it cannot be read; the message names file and line.
        """
        super().__init__()
        self.source = Source(raw, name)
        self.segments: list[Segment] = []
        """That of each slot."""
        for segment in segments([self.source.utf8], name):
            text, codes = segment.inline(segment.source)
            if text.strip():
                place = f"{name}:{segment.source.line}"
                self.slots.append(Slot(place, text, codes, filled=_is_filled(segment, text), locked=segment.locked))
                self.segments.append(segment)

    def filled(self, fillings: Mapping[int, Filling]) -> bytes:
        return self.source.with_edits(
            edit
            for number, filling in fillings.items()
            for edit in _edits(self.segments[number], filling, self.slots[number].codes)
        )


def _is_filled(segment: Segment, text: str) -> bool:
    there = segment.inline(segment.target).text if segment.target else ""
    copied = segment.state == "initial" and there == text
    return bool(there.strip()) and segment.state not in EMPTY and not copied


def _edits(segment: Segment, filling: Filling, codes: Iterable[str]) -> Iterator[Edit]:
    content, unit, target = written(filling.text, codes), segment.unit, segment.target
    if segment.is_version_2:
        yield _state(segment.holder, unit, "initial" if filling.review else "translated")
    if target is None:
        yield _new_target(segment, content, filling.review)
        return
    tag = _tag_with_state(unit.cut(target.start, target.inside), segment, filling.review)
    if target.is_one_tag:
        opened = re.sub(r"\s*/>$", ">", tag)
        yield Edit(target.start, target.end, f"{opened}{content}</{_qualified(tag)}>")
    else:
        yield Edit(target.start, target.outside, tag + content)


def _state(element: Element, unit: Unit, state: str) -> Edit:
    return Edit(element.start, element.inside, with_attribute(unit.cut(element.start, element.inside), "state", state))


def _tag_with_state(tag: str, segment: Segment, review: bool) -> str:
    if segment.is_version_2 or not (review or segment.state in UNSURE):
        return tag
    return with_attribute(tag, "state", "needs-review-translation" if review else "translated")


def _new_target(segment: Segment, content: str, review: bool) -> Edit:
    """A target after the source (1.2: and its segmentation), laid out as the source is."""
    last = segment.holder.find("seg-source") or segment.source
    before = segment.unit.cut(segment.unit.element.start, segment.source.start)
    gap = re.search(r"\s*$", before)
    assert gap
    name = re.sub("source$", "target", _qualified(segment.unit.cut(segment.source.start, segment.source.inside)))
    tag = _tag_with_state(f"<{name}>", segment, review)
    return Edit(last.end, last.end, f"{gap[0].replace(chr(13), '')}{tag}{content}</{name}>")


def _qualified(tag: str) -> str:
    """The name in a start tag, its prefix included."""
    found = re.match(r"<([^\s/>]+)", tag)
    assert found
    return found[1]
