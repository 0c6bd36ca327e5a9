"""Cleaning: each pair is normalised, then removed and counted by the first rule that rejects it.

The rules are in ``rules.py``. Pairs stream through, and their history is on disk (``remembered.py``), so memory does
not grow with their number. Rules that must know the whole text see it first, while it is spooled to a temporary file.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Generic, NamedTuple, TypeVar

from dragoman.text.cleaning.remembered import spooled, temporary_database
from dragoman.text.cleaning.rules import Cleaning, CleaningRule, LearnedRule, stateful_rules, stateless_rules
from dragoman.text.cleaning.workers import map_parallel
from dragoman.text.lines import AnyPair, Pair, Sourced, TwoSided

__all__ = ["EXAMPLES", "CleanReport", "Cleaning", "clean", "merge_reports", "normalise", "normalise_pair"]

EXAMPLES = 3
"""Number of removed pairs that the report shows for each rule."""


@dataclass
class CleanReport:
    """Outcome of cleaning: filled while ``clean`` runs, complete when it ends."""

    read: int = 0
    kept: int = 0
    normalised: int = 0
    """Number of pairs that normalisation changed, removed or not."""
    removed: dict[str, int] = field(default_factory=dict)
    """Number of pairs that each rule in force removed, in the order of the rules."""
    examples: dict[str, list[Pair]] = field(default_factory=dict)
    """First pairs that each rule removed."""

    def remove(self, rule: str, pair: TwoSided) -> None:
        """Count a removed pair, and keep it if it is among the first of its rule."""
        self.removed[rule] += 1
        if len(self.examples[rule]) < EXAMPLES:
            self.examples[rule].append(Pair(pair.source, pair.target))

    def __str__(self) -> str:
        """Return one line that names the rules that removed something, most pairs first."""
        worst = sorted(((n, rule) for rule, n in self.removed.items() if n), key=lambda row: -row[0])
        by_rule = ", ".join(f"{rule} {n:,}" for n, rule in worst)
        return f"{self.kept:,} of {self.read:,} pairs kept" + (f"; removed: {by_rule}" if by_rule else "")


def merge_reports(reports: Sequence[CleanReport]) -> CleanReport:
    """Merge the reports of several cleanings by the same rules."""
    read, kept, normalised = (
        sum(getattr(report, name) for report in reports) for name in ("read", "kept", "normalised")
    )
    merged = CleanReport(read, kept, normalised)
    for report in reports:
        for rule, count in report.removed.items():
            merged.removed[rule] = merged.removed.get(rule, 0) + count
            merged.examples[rule] = [*merged.examples.get(rule, ()), *report.examples[rule]][:EXAMPLES]
    return merged


def clean(
    pairs: Iterable[AnyPair], cfg: Cleaning, report: CleanReport | None = None, *, workers: int = 1
) -> Iterator[AnyPair]:
    """Yield the pairs that no rule rejects, normalised and in their order, and fill ``report``. Rules that need only
    the pair are applied by ``workers`` processes; the result is the same with any number.

    It reads no further than it is consumed, unless a rule must learn from the whole text (``max_deviations``,
    ``conflicts``): then it reads everything before the first pair is yielded.

    Raises:
        DataError: no room on the disk for the temporary tables.
    """
    report = CleanReport() if report is None else report
    with temporary_database() as memory:
        alone, rules = stateless_rules(cfg), stateful_rules(cfg, memory)
        for name, _ in (*alone, *rules):
            report.removed[name], report.examples[name] = 0, []
        learners = [rule.rejects for rule in rules if isinstance(rule.rejects, LearnedRule)]
        left = _sift(pairs, cfg, report, workers)
        if not learners:
            yield from _apply_rules(left, rules, report)
            return
        with spooled(_learn_from(left, learners)) as again:
            yield from _apply_rules(again, rules, report)


class Judged(NamedTuple, Generic[AnyPair]):
    """Pair after the rules that need only the pair."""

    pair: AnyPair
    """Normalised pair."""
    changed: bool
    """True if normalisation changed it."""
    removed_by: str | None
    """Name of the rule that rejects it, if any."""


def judge(cfg: Cleaning, pairs: Iterable[AnyPair]) -> list[Judged[AnyPair]]:
    """Apply the rules that need only the pair."""
    rules = _rules(cfg)
    return [_judged(pair, rules) for pair in pairs]


_rules = lru_cache(1)(stateless_rules)


def _judged(pair: AnyPair, rules: Sequence[CleaningRule]) -> Judged[AnyPair]:
    normalised = normalise_pair(pair)
    return Judged(normalised, normalised != pair, _objection(normalised, rules))


def _objection(pair: TwoSided, rules: Sequence[CleaningRule]) -> str | None:
    return next((name for name, rejects in rules if rejects(pair)), None)


def _sift(pairs: Iterable[AnyPair], cfg: Cleaning, report: CleanReport, workers: int) -> Iterator[AnyPair]:
    for pair, changed, why in map_parallel(pairs, partial(judge, cfg), workers):
        report.read += 1
        report.normalised += changed
        if why:
            report.remove(why, pair)
        else:
            yield pair


def _apply_rules(pairs: Iterable[AnyPair], rules: Sequence[CleaningRule], report: CleanReport) -> Iterator[AnyPair]:
    for pair in pairs:
        if why := _objection(pair, rules):
            report.remove(why, pair)
        else:
            report.kept += 1
            yield pair


def _learn_from(pairs: Iterable[AnyPair], learners: Sequence[LearnedRule]) -> Iterator[AnyPair]:
    for pair in pairs:
        for learner in learners:
            learner.learn(pair)
        yield pair


# ---- normalisation --------------------------------------------------------------------------------


def normalise(text: str) -> str:
    """Normalise to Unicode NFC; runs of white space and control characters (U+2028 too) become one space, none at the
    ends."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()  # fast path for most lines, at a tenth of the cost
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text).replace("\ufeff", "")).strip()


TidyPair = TypeVar("TidyPair", bound=Pair | Sourced)


def normalise_pair(pair: TidyPair) -> TidyPair:
    """Return the pair with both sides normalised."""
    return pair._replace(source=normalise(pair.source), target=normalise(pair.target))


_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
