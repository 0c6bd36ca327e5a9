"""Limits and rules that a file has on its translations: an answer that breaks one is exchanged for another good one,
or gets a warning."""

import dataclasses
from collections.abc import Sequence

from dragoman.decode.documents.source_line import Require, with_warning
from dragoman.decode.request import Request
from dragoman.decode.translation import Translation
from dragoman.text.checks import Translated, check_length, check_rules
from dragoman.text.document import Slot
from dragoman.text.invariants import find_changes, without_placeholders
from dragoman.text.lines import PrecedingSentences
from dragoman.text.placeholders import find_placeholders, placeholders_preserved


def broken_rule(slot: Slot, text: str) -> str | None:
    """Return what a limit or rule of the file finds wrong with a translation of a slot; None if nothing is."""
    if slot.limit is None and not slot.rules:
        return None
    pair = Translated(slot.place, slot.text, text, slot.codes, slot.limit, slot.rules)
    return check_length(pair) or check_rules(pair)


def within_rules(
    slots: Sequence[Slot],
    answers: Sequence[Translation],
    contexts: Sequence[PrecedingSentences],
    require: Require | None,
) -> list[Translation]:
    """Return the answers for these slots: those that break a rule of the file exchanged, or with a warning.

    Args:
        require: offers more candidates for a text.
    """
    broken = [i for i, (slot, answer) in enumerate(zip(slots, answers, strict=True)) if broken_rule(slot, answer.text)]
    found = list(answers)
    asked = [i for i in broken if require is not None and not any(c in slots[i].text for c in "\n\t")]
    if asked and require is not None:
        questions = [Request(slots[i].text.strip(), context=contexts[i]) for i in asked]
        for i, offered in zip(asked, require([*questions], [[] for _ in asked]), strict=True):
            found[i] = _exchanged(slots[i], found[i], offered)
    for i in broken:
        if problem := broken_rule(slots[i], found[i].text):
            found[i] = with_warning(found[i], problem)
    return found


def _exchanged(slot: Slot, answer: Translation, offered: Translation) -> Translation:
    """Return an answer with the best of the offered candidates that keeps to the rules, placeholders and numbers."""
    placeholders = find_placeholders(slot.text, slot.codes)
    bare = without_placeholders(slot.text, placeholders)
    start = slot.text[: len(slot.text) - len(slot.text.lstrip())]
    end = slot.text[len(slot.text.rstrip()) :]
    for candidate in offered.candidates:
        there = find_placeholders(candidate.text, slot.codes)
        kept = placeholders_preserved(placeholders, there)
        text = start + candidate.text + end
        if kept and not find_changes(bare, without_placeholders(candidate.text, there)) and not broken_rule(slot, text):
            chosen = dataclasses.replace(candidate, text=text)
            return dataclasses.replace(answer, candidates=(chosen,), confidence=candidate.estimated_confidence)
    return answer
