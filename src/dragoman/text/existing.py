"""Translations that a file of the target language has already, for a document in the source language."""

from dragoman.text.document import FillableDocument, Filling
from dragoman.text.filled.spans import SpannedDocument


def existing_translations(document: FillableDocument, translated: FillableDocument) -> dict[int, Filling] | None:
    """Return the texts of ``translated`` by the slots of ``document`` with the same keys.

    None if that cannot be told: the entries of a page and the like have no names, and it has other parts.
    """
    there = {slot.key: slot for slot in translated.slots if slot.key}
    if not document.pairs_with(translated):
        return None
    return {
        number: Filling(there[slot.key].text, codes=there[slot.key].codes)
        for number, slot in enumerate(document.slots)
        if slot.key in there
    }


def take_values(document: FillableDocument, translated: FillableDocument) -> None:
    """Write the values of ``translated`` that are no text, such as numbers, where ``document`` has others."""
    if not isinstance(document, SpannedDocument) or not isinstance(translated, SpannedDocument):
        return
    for key, value in document.values.items():
        if (there := translated.values.get(key)) and there.new != value.new:
            document.declarations.append(value._replace(new=there.new))


def only_in(document: FillableDocument, translated: FillableDocument) -> list[str]:
    """Return the keys of ``translated`` that ``document`` does not have."""
    there = {slot.key for slot in document.slots}
    return [slot.key for slot in translated.slots if slot.key and slot.key not in there]
