"""The safety page around translations: texts and answers are judged, and those withheld are replaced by its words."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translation import Candidate, Translation
from dragoman.text.document import FillableDocument, Filling

if TYPE_CHECKING:
    from dragoman.serve.safety.page import Decision, SafetyPage

Rows = list[int]
AskRows = Callable[[Rows, SearchConfig | None], Awaitable[list[Translation]]]
"""Translates the texts of these rows, with the search of the request (None) or the one that is given."""


@dataclass(frozen=True)
class GuardedTranslation:
    """A translation, and what the safety page decided about it."""

    translation: Translation
    decision: "Decision | None" = None

    @property
    def withheld(self) -> bool:
        """True where the safety page's words stand instead of a translation."""
        return self.decision is not None and self.decision.withholds

    def needs_review(self, flag_below: float | None = None) -> bool:
        """Return whether a person should look at it: it has a warning, the safety page decided about it, or its
        confidence is below the one that was wanted."""
        unsure = flag_below is not None and self.translation.confidence < flag_below
        return bool(self.translation.warnings) or self.decision is not None or unsure


async def guard_translations(page: "SafetyPage | None", texts: Sequence[str], ask: AskRows) -> list[GuardedTranslation]:
    """Translate texts as far as the safety page allows it."""
    if page is None:
        return [GuardedTranslation(one) for one in await ask(list(range(len(texts))), None)]
    decisions = await asyncio.to_thread(lambda: [page.before(text) for text in texts])
    first = [row for row, decision in enumerate(decisions) if decision is None or not decision.withholds]
    found = await _ask_by_search(first, decisions, ask)
    later = await _judge(page, texts, found, [row for row in first if decisions[row] is None], degraded=False)
    later |= await _judge(page, texts, found, [row for row in first if decisions[row] is not None], degraded=True)
    again = [row for row, decision in later.items() if not decision.withholds]
    for row, decision in later.items():
        decisions[row] = decision
    found |= await _ask_by_search(again, decisions, ask)
    for row, decision in (await _judge(page, texts, found, again, degraded=True)).items():
        decisions[row] = decision

    def outcomes() -> list[GuardedTranslation]:
        return [_outcome(page, row, text, found.get(row), decisions[row]) for row, text in enumerate(texts)]

    return await asyncio.to_thread(outcomes)


async def _ask_by_search(rows: Rows, decisions: "Sequence[Decision | None]", ask: AskRows) -> dict[int, Translation]:
    groups: dict[str, tuple[SearchConfig | None, Rows]] = {}
    for row in rows:
        decision = decisions[row]
        search = decision.search if decision else None
        groups.setdefault(repr(search), (search, []))[1].append(row)
    answers = await asyncio.gather(*(ask(own, search) for search, own in groups.values()))
    pairs = zip(groups.values(), answers, strict=True)
    return {row: one for (_, own), some in pairs for row, one in zip(own, some, strict=True)}


async def _judge(
    page: "SafetyPage", texts: Sequence[str], found: dict[int, Translation], rows: Rows, *, degraded: bool
) -> "dict[int, Decision]":
    """Return the decisions on the answers of these rows, where there are any."""
    judged = await asyncio.to_thread(lambda: [page.after(texts[row], found[row], degraded=degraded) for row in rows])
    return {row: decision for row, decision in zip(rows, judged, strict=True) if decision is not None}


def _outcome(
    page: "SafetyPage", row: int, text: str, translation: Translation | None, decision: "Decision | None"
) -> GuardedTranslation:
    if translation is None or (decision is not None and decision.withholds):
        assert decision is not None
        instead = Candidate(decision.text, 0.0, 0.0, (), (), False)
        return GuardedTranslation(Translation(row + 1, text, (instead,), confidence=0.0), decision)
    best, *others = translation.candidates
    shown = (best, *(one for one in others if page.permits(one.text)))
    return GuardedTranslation(replace(translation, candidates=shown), decision)


# ---- documents ------------------------------------------------------------------------------------------


class _Filled(NamedTuple):
    """Answer of which only the text is known."""

    text: str


class GuardedDocument(FillableDocument):
    """A document that leaves entries unfilled whose text or translation the safety page withholds."""

    def __init__(self, document: FillableDocument, page: "SafetyPage"):
        self.document, self.page = document, page
        self.slots, self.notes = document.slots, document.notes
        self.withheld = 0
        self._judged: dict[int, Filling] | None = None

    def slots_to_review(self, fillings: Mapping[int, Filling]) -> set[int]:
        return self.document.slots_to_review(self._allowed(fillings))

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        allowed = self._allowed(fillings)
        self.withheld = len(fillings) - len(allowed)
        return self.document.fill(allowed)

    def _allowed(self, fillings: Mapping[int, Filling]) -> dict[int, Filling]:
        if self._judged is None:
            self._judged = {number: filling for number, filling in fillings.items() if self._permits(number, filling)}
        return self._judged

    def _permits(self, number: int, filling: Filling) -> bool:
        text = self.slots[number].text
        decision = self.page.before(text)
        if decision is None or not decision.withholds:
            decision = self.page.after(text, _Filled(filling.text), degraded=True)
        return decision is None or not decision.withholds
