"""Translating documents: what is missing in them is filled, and nothing else in them changes."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.documents import placeholders
from dragoman.decode.documents.source_line import Ask, Require, SourceQuestion, is_left_alone
from dragoman.decode.translation import Translation
from dragoman.decode.translator import Progress
from dragoman.text.context import NO_CONTEXT, NoContext, SentencesBefore
from dragoman.text.document import FillableDocument, Filling

AskAndTell = Callable[[list[SourceQuestion], Progress | None], list[Translation]]
"""Translates texts, and tells what it is given how many are done."""
CHUNK = 1024
"""Slots translated at a time."""


@dataclass(frozen=True)
class DocumentSummary:
    content: bytes
    """The document, filled."""
    filled: int
    """Slots that got a translation, those to be looked at included."""
    left: int
    """Slots that had one, and kept it."""
    flagged: int
    """Of those that got one, the slots that a person should look at, marked so in the document."""
    untranslated: int
    """Slots that had none and got none, because the answer was no translation; a warning names each."""
    warnings: tuple[str, ...]
    """Each names its place."""


def translate_document(
    document: FillableDocument,
    ask: AskAndTell,
    *,
    redo: bool = False,
    flag_below: float | None = None,
    require: Require | None = None,
    context: NoContext | SentencesBefore = NO_CONTEXT,
    check_numbers: bool = True,
    glossary: Glossary | None = None,
    progress: Progress | None = None,
) -> DocumentSummary:
    """Fill the slots of a document that have no translation yet.

    Args:
        ask: the translator.
        redo: also those that have one, unless it was approved.
        flag_below: confidence below which a translation is marked for review. One that a warning names is marked in
            any case, and one that is still the source, word for word, is not written at all.
        require: see ``placeholders.translate``.
        context: how much of the texts before it, whether they have a translation or not, is read with each.
        check_numbers, glossary: see ``placeholders.translate``.
        progress: called with how many slots are done, and of how many.

    Raises:
        DataError: a translation that the file cannot hold.
    """
    chosen = [i for i, slot in enumerate(document.slots) if not slot.filled or (redo and not slot.locked)]
    fillings: dict[int, Filling] = {}
    warnings = list(document.notes)
    before = [before for _, before in context.in_lines(slot.text for slot in document.slots)]
    for start in range(0, len(chosen), CHUNK):
        some = chosen[start : start + CHUNK]
        slots = [document.slots[i] for i in some]
        answers = placeholders.translate(
            [slot.text for slot in slots],
            _reporting(ask, progress, start, len(some), len(chosen)),
            codes=[slot.codes for slot in slots],
            contexts=[before[i] for i in some],
            require=require,
            check_numbers=check_numbers,
            glossary=glossary,
        )
        for i, slot, answer in zip(some, slots, answers, strict=True):
            if not is_left_alone(answer):
                doubtful = flag_below is not None and answer.confidence < flag_below
                fillings[i] = Filling(answer.text, doubtful or bool(answer.warnings))
            warnings += [re.sub(r"^row \d+", slot.place, warning) for warning in answer.warnings]
    return DocumentSummary(
        content=document.fill(fillings),
        filled=len(fillings),
        left=sum(slot.filled for i, slot in enumerate(document.slots) if i not in fillings),
        flagged=len(document.slots_to_review(fillings)),
        untranslated=sum(not slot.filled for i, slot in enumerate(document.slots) if i not in fillings),
        warnings=tuple(warnings),
    )


def _reporting(ask: AskAndTell, progress: Progress | None, before: int, size: int, total: int) -> Ask:
    """``ask`` for one chunk of slots: its first question, which is most of the work, moves the progress."""

    def tell(done: int, of: int) -> None:
        if progress:
            progress(before + size * done // max(of, 1), total)

    tellers = iter([tell])
    return lambda texts: ask(texts, next(tellers, None))
