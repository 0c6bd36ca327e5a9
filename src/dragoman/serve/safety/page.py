"""Safety page: its rules applied around a translation or an answer, each counted.

    page = SafetyPage.read("safety.yaml")
    answer, decision = page.guard(text, lambda search: translate(text, search))
    answer, decision = await page.guard_async(text, ask)           # ask(search) is a coroutine

``before`` and ``after`` are the two halves, for callers that batch.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from dragoman.config import from_dict, load_yaml
from dragoman.decode.search.search import SearchConfig
from dragoman.errors import ConfigError
from dragoman.serve.safety.human_queue import TicketQueue
from dragoman.serve.safety.matching import Matcher, build_matcher
from dragoman.serve.safety.rules import Degrade, HandOver, Refuse, SafetyPageConfig, SafetyRule, Side

ActionName = Literal["refuse", "hand_over", "degrade"]
_NAMES: dict[type, ActionName] = {Refuse: "refuse", HandOver: "hand_over", Degrade: "degrade"}


class TextAnswer(Protocol):
    """An answer: a ``Translation`` or ``Generation``. Where it has a ``confidence`` too, rules can ask for it."""

    @property
    def text(self) -> str: ...


A = TypeVar("A", bound=TextAnswer)


@dataclass(frozen=True)
class Decision:
    """A rule that matched, and what follows."""

    rule: str
    action: ActionName
    on: Side
    """Side that matched: the text that was asked about, or its answer."""
    text: str
    """For the user: instead of an answer or, for ``degrade``, beside it."""
    search: SearchConfig | None = None
    """For ``degrade``: the search of the answer to give."""
    ticket: str | None = None
    """For ``hand_over``: id of the entry in the queue."""

    @property
    def withholds(self) -> bool:
        """True where the user gets no answer."""
        return self.action != "degrade"

    def plain(self) -> dict[str, Any]:
        """Return what a client is told, as JSON can hold it."""
        told = {"rule": self.rule, "action": self.action, "on": self.on, "text": self.text}
        return told | ({"ticket": self.ticket} if self.ticket else {})


class Guarded(NamedTuple, Generic[A]):
    """An answer, unless it is withheld, and the decision, if any."""

    answer: A | None
    decision: Decision | None


class SafetyPage:
    """Rules in their order, with counters."""

    def __init__(self, cfg: SafetyPageConfig, folder: Path = Path()):
        """
        Args:
            folder: what relative names in the page are relative to.

        Raises:
            ConfigError: a rule that cannot be applied; the message names its place.
            OutputError: the queue's file cannot be written to.
        """
        self.cfg = cfg
        self.matched: Counter[tuple[str, ActionName, Side]] = Counter()
        """Times that each rule matched, by rule, action and side."""
        self.failures: Counter[str] = Counter()
        """Times that something could not be done, by what it was."""
        _check_names(cfg)
        self.rules: list[tuple[SafetyRule, Matcher]] = [
            (rule, build_matcher(rule.match, folder, f"rules.{i}.match", self.failures))
            for i, rule in enumerate(cfg.rules)
        ]
        self.queue = TicketQueue(cfg.queue, folder, self.failures) if cfg.queue else None

    @classmethod
    def read(cls, path: str | Path) -> "SafetyPage":
        """Read a page.

        Raises:
            ConfigError: no such file, or one that is not a page; the message names file and place.
        """
        data = load_yaml(Path(path))
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: not a safety page: a mapping with rules is expected")
        try:
            return cls(from_dict(SafetyPageConfig, data, where=""), Path(path).parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    # ---- applied ----

    def before(self, text: str) -> Decision | None:
        """Return the decision on a text that is asked about; None to go on as usual."""
        return self._decide("source", text, None, text, None)

    def after(self, text: str, answer: TextAnswer, *, degraded: bool = False) -> Decision | None:
        """Return the decision on an answer to ``text``; None to give it.

        Args:
            degraded: the answer was already made by a safer search, so that no rule asks for one again.
        """
        confidence = getattr(answer, "confidence", None)
        return self._decide("answer", answer.text, confidence, text, answer.text, degraded=degraded)

    def permits(self, text: str) -> bool:
        """Return whether a further answer, such as an alternative translation, may be shown; this is not counted."""
        return not any(
            rule.looks_at("answer") and not isinstance(rule.action, Degrade) and matcher.matches(text, None)
            for rule, matcher in self.rules
        )

    def guard(self, text: str, ask: Callable[[SearchConfig | None], A]) -> Guarded[A]:
        """Return the answer to a text as far as the rules allow one.

        Args:
            ask: answers the text, with the usual search (None) or the one it is given.
        """
        decision = self.before(text)
        if decision and decision.withholds:
            return Guarded(None, decision)
        answer = ask(decision.search if decision else None)
        later = self.after(text, answer, degraded=decision is not None)
        if later and not later.withholds:
            answer, decision = ask(later.search), later
            later = self.after(text, answer, degraded=True)
        return Guarded(None, later) if later else Guarded(answer, decision)

    async def guard_async(self, text: str, ask: Callable[[SearchConfig | None], Awaitable[A]]) -> Guarded[A]:
        """Same as ``guard``, where ``ask`` is a coroutine.

        Rules are applied in a thread, for they may ask a classifier, or write to a disk.
        """
        decision = await asyncio.to_thread(self.before, text)
        if decision and decision.withholds:
            return Guarded(None, decision)
        answer = await ask(decision.search if decision else None)
        later = await asyncio.to_thread(self.after, text, answer, degraded=decision is not None)
        if later and not later.withholds:
            answer, decision = await ask(later.search), later
            later = await asyncio.to_thread(self.after, text, answer, degraded=True)
        return Guarded(None, later) if later else Guarded(answer, decision)

    def _decide(
        self,
        side: Side,
        looked_at: str,
        confidence: float | None,
        source: str,
        answer: str | None,
        *,
        degraded: bool = False,
    ) -> Decision | None:
        mildest: Decision | None = None
        for rule, matcher in self.rules:
            repeated = isinstance(rule.action, Degrade) and (degraded or mildest is not None)
            if repeated or not rule.looks_at(side) or not matcher.matches(looked_at, confidence):
                continue
            name = _NAMES[type(rule.action)]
            self.matched[rule.name, name, side] += 1
            search = rule.action.search if isinstance(rule.action, Degrade) else None
            decision = Decision(rule.name, name, side, rule.action.text, search)
            if not decision.withholds:
                mildest = decision
                continue
            return self._handed_over(decision, source, answer) if name == "hand_over" else decision
        return mildest

    def _handed_over(self, decision: Decision, source: str, answer: str | None) -> Decision:
        assert self.queue is not None, "checked when the page was read"
        ticket = uuid.uuid4().hex
        entry = {"id": ticket, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "rule": decision.rule}
        self.queue.add(entry | {"on": decision.on, "source": source, "answer": answer})
        return Decision(decision.rule, decision.action, decision.on, decision.text, ticket=ticket)

    # ---- counted ----

    def counters(self) -> dict[str, dict[tuple[str, ...], int]]:
        """Return all counters: name -> labels -> number, as Prometheus takes them. Rules that never matched are there,
        with 0."""
        sides: tuple[Side, ...] = ("source", "answer")
        counted = {
            (rule.name, _NAMES[type(rule.action)], side): self.matched[rule.name, _NAMES[type(rule.action)], side]
            for rule, _ in self.rules
            for side in sides
            if rule.looks_at(side)
        }
        return {
            "safety_decisions_total": dict(counted.items()),
            "safety_failures_total": {(what,): number for what, number in self.failures.items()},
        }


LABELS = {"safety_decisions_total": ("rule", "action", "on"), "safety_failures_total": ("what",)}
"""Names of the labels of each counter."""


def _check_names(cfg: SafetyPageConfig) -> None:
    if not cfg.rules:
        raise ConfigError("rules: none are listed: name at least one")
    names = [rule.name for rule in cfg.rules]
    for i, rule in enumerate(cfg.rules):
        if not rule.name.strip() or names.index(rule.name) != i:
            raise ConfigError(f"rules.{i}.name: {rule.name!r}: each rule needs a name of its own, for the counters")
        if isinstance(rule.action, HandOver) and cfg.queue is None:
            raise ConfigError(
                f"rules.{i}.action: hands over, and there is no queue: add queue: "
                "{kind: file_queue, path: for-people.jsonl}"
            )
