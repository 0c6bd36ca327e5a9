"""Document translation: missing translations are filled in, and nothing else in the document changes."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.documents import placeholders
from dragoman.decode.documents.file_rules import broken_rule, within_rules
from dragoman.decode.documents.redo import Redo
from dragoman.decode.documents.source_line import Ask, Require, SourceQuestion, is_left_alone
from dragoman.decode.translation import Translation
from dragoman.decode.translator import Progress
from dragoman.text.context import NO_CONTEXT, ReadContext
from dragoman.text.document import FillableDocument, Filling, Slot
from dragoman.text.fuzzy import FuzzyMatch
from dragoman.text.memory import TranslationMemory

TranslateTexts = Callable[[list[SourceQuestion], Progress | None], list[Translation]]
"""Translates texts, and reports progress to the callback."""
CHUNK = 1024
"""Slots translated at a time."""


class Origin(StrEnum):
    """Maker of a translation."""

    model = "model"
    memory = "memory"
    kept = "kept"
    """It was in the file, or in the file of the target language."""
    none = "none"


@dataclass(frozen=True)
class DocumentEntry:
    """Translation of a slot, for reports."""

    place: str
    source: str
    text: str
    origin: Origin
    confidence: float = 1.0
    review: bool = False
    """True if it is marked for review."""
    warnings: tuple[str, ...] = ()
    similarity: float | None = None
    """Similarity of the best fuzzy match that the model read with it; None where it read none."""
    cosine: float | None = None
    """Cosine of that match, where it is one by meaning."""


@dataclass(frozen=True)
class DocumentSummary:
    """A translated document with counts of its slots."""

    content: bytes
    """Content of the document with its translations."""
    filled: int
    """Number of slots that got a translation, flagged ones included."""
    left: int
    """Number of slots that kept the translation they had."""
    flagged: int
    """Number of filled slots that a person should check, marked so in the document."""
    untranslated: int
    """Number of slots still without a translation, because the answer was none; a warning names each."""
    warnings: tuple[str, ...]
    """Warnings, each naming its place."""
    remembered: int = 0
    """Number of filled slots whose translation is from a translation memory."""
    entries: tuple[DocumentEntry, ...] = ()
    """Every slot, in the order of the document."""

    @property
    def with_matches(self) -> int:
        """Number of slots that the model translated with fuzzy matches of a translation memory."""
        return sum(entry.similarity is not None for entry in self.entries)


def slots_to_fill(
    document: FillableDocument, kept: Mapping[int, Filling] | None = None, redo: bool | Redo = Redo.nothing
) -> list[int]:
    """Return the slots that are translated: those without a translation, and those that are redone.

    Args:
        kept: translations from a file of the target language.
        redo: True is the same as ``Redo.all``.
    """
    again = Redo.all if redo is True else redo or Redo.nothing

    def wanted(number: int, slot: Slot) -> bool:
        if not (slot.filled or number in (kept or {})):
            return True
        return not slot.locked and (again is Redo.all or (again is Redo.fuzzy and slot.fuzzy))

    return [number for number, slot in enumerate(document.slots) if wanted(number, slot)]


def translate_document(
    document: FillableDocument,
    ask: TranslateTexts,
    *,
    redo: bool | Redo = False,
    kept: Mapping[int, Filling] | None = None,
    memory: TranslationMemory | None = None,
    flag_below: float | None = None,
    require: Require | None = None,
    context: ReadContext = NO_CONTEXT,
    check_numbers: bool = True,
    glossary: Glossary | None = None,
    progress: Progress | None = None,
) -> DocumentSummary:
    """Fill the slots of a document that have no translation yet.

    Args:
        ask: the translator.
        redo: also translate slots that have a translation, unless it was approved: those marked for review, or all
            (True).
        kept: translations of slots from a file of the target language; they count as there.
        memory: asked first; what it has is not translated.
        flag_below: confidence below which a translation is marked for review. One with a warning is marked in any case.
            One that is still the source, word for word, is not written at all.
        require: see ``placeholders.translate``.
        context: how much of the texts before it, whether they have a translation or not, is read with each.
        check_numbers, glossary: see ``placeholders.translate``.
        progress: called with how many slots are done, and of how many.

    Raises:
        DataError: a translation that the file cannot hold.
    """
    chosen = slots_to_fill(document, kept, redo)
    remembered = _from_memory(document, chosen, memory)
    answers = _answers(
        document,
        [number for number in chosen if number not in remembered],
        ask,
        context,
        progress,
        {"require": require, "check_numbers": check_numbers, "glossary": glossary},
    )
    fillings = {
        number: Filling(text, review=broken_rule(document.slots[number], text) is not None, remembered=True)
        for number, text in remembered.items()
    }
    for number, answer in answers.items():
        if not is_left_alone(answer):
            doubtful = flag_below is not None and answer.confidence < flag_below
            fillings[number] = Filling(answer.text, doubtful or bool(answer.warnings))
    there = {number: filling for number, filling in (kept or {}).items() if number not in fillings}
    new = len(fillings)
    content = document.fill({**there, **fillings})
    flagged = document.slots_to_review(fillings)
    filled = {number for number, slot in enumerate(document.slots) if slot.filled} | there.keys()
    return DocumentSummary(
        content=content,
        filled=new,
        left=len(filled - fillings.keys()),
        flagged=len(flagged),
        untranslated=len(document.slots) - len(filled | fillings.keys()),
        warnings=(
            *document.notes,
            *(w for number, answer in answers.items() for w in _placed(document, number, answer)),
        ),
        remembered=len(remembered),
        entries=tuple(_entries(document, {**there, **fillings}, remembered, answers, flagged)),
    )


def _from_memory(document: FillableDocument, chosen: list[int], memory: TranslationMemory | None) -> dict[int, str]:
    """Return the translations that a memory has, by slot."""
    if memory is None:
        return {}
    found = {number: memory.find(document.slots[number].text, document.slots[number].codes) for number in chosen}
    return {number: text for number, text in found.items() if text is not None}


def _answers(
    document: FillableDocument,
    chosen: list[int],
    ask: TranslateTexts,
    context: ReadContext,
    progress: Progress | None,
    options: dict[str, Any],
) -> dict[int, Translation]:
    """Return the translator's answers by slot."""
    before = list(context.of_entries(document.slots))
    found: dict[int, Translation] = {}
    for start in range(0, len(chosen), CHUNK):
        indices = chosen[start : start + CHUNK]
        slots = [document.slots[i] for i in indices]
        answers = placeholders.translate(
            [slot.text for slot in slots],
            _reporting(ask, progress, start, len(indices), len(chosen)),
            codes=[slot.codes for slot in slots],
            contexts=[before[i] for i in indices],
            **options,
        )
        answers = within_rules(slots, answers, [before[i] for i in indices], options["require"])
        found |= zip(indices, answers, strict=True)
    return found


def _placed(document: FillableDocument, number: int, answer: Translation) -> list[str]:
    """Return an answer's warnings with the place of its slot."""
    return [re.sub(r"^row \d+", document.slots[number].place, warning) for warning in answer.warnings]


def _entries(
    document: FillableDocument,
    fillings: Mapping[int, Filling],
    remembered: Mapping[int, str],
    answers: Mapping[int, Translation],
    flagged: set[int],
) -> Iterator[DocumentEntry]:
    for number, slot in enumerate(document.slots):
        filling, answer = fillings.get(number), answers.get(number)
        best = max(answer.matches, key=_closeness, default=None) if answer else None
        made = Origin.memory if number in remembered else Origin.model if answer else Origin.kept
        text = filling.text if filling else "" if answer else slot.translation
        yield DocumentEntry(
            place=slot.place,
            source=slot.text,
            text=text,
            origin=made if filling or slot.filled else Origin.none,
            confidence=answer.confidence if answer else 1.0,
            review=number in flagged or (slot.fuzzy and answer is None),
            warnings=tuple(w.partition(": ")[2] for w in answer.warnings) if answer else (),
            similarity=best.similarity if best else None,
            cosine=best.cosine if best else None,
        )


def _closeness(match: FuzzyMatch) -> tuple[bool, float]:
    """Return what ranks a match: those of similar words come before those by meaning."""
    return match.cosine is None, match.similarity


def _reporting(ask: TranslateTexts, progress: Progress | None, before: int, size: int, total: int) -> Ask:
    """Return ``ask`` for one chunk of slots, with progress reported on its first call, which is most of the work."""

    def report(done: int, of: int) -> None:
        if progress:
            progress(before + size * done // max(of, 1), total)

    reporters = iter([report])
    return lambda texts: ask(texts, next(reporters, None))
