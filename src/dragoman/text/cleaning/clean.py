"""Cleaning: each pair is normalised, then the first rule that objects to it removes it and is counted.

The rules are in ``rules.py``. Pairs stream through: what must be remembered of them is on disk (``remembered.py``), so
memory does not grow with their number. Rules that must know the whole text first see it while it is laid aside.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Generic, NamedTuple

from dragoman.text.cleaning.remembered import laid_aside, remembering
from dragoman.text.cleaning.rules import Cleaning, CleaningRule, LearnedRule, rules_alone, rules_that_remember
from dragoman.text.cleaning.workers import shared
from dragoman.text.lines import AnyPair, Pair, TwoSided

__all__ = ["EXAMPLES", "CleanReport", "Cleaning", "added_up", "clean", "normalise"]

EXAMPLES = 3
"""Pairs that the report shows for each rule."""


@dataclass
class CleanReport:
    """What cleaning did: filled while ``clean`` runs, complete when it ends."""

    read: int = 0
    kept: int = 0
    normalised: int = 0
    """Pairs that normalisation changed, removed or not."""
    removed: dict[str, int] = field(default_factory=dict)
    """Rule -> pairs it removed, for every rule in force, in the order they are asked."""
    examples: dict[str, list[Pair]] = field(default_factory=dict)
    """Rule -> the first pairs it removed."""

    def remove(self, rule: str, pair: TwoSided) -> None:
        self.removed[rule] += 1
        if len(self.examples[rule]) < EXAMPLES:
            self.examples[rule].append(Pair(pair.source, pair.target))

    def __str__(self) -> str:
        """One line; names the rules that removed something, the harshest first."""
        worst = sorted(((n, rule) for rule, n in self.removed.items() if n), key=lambda row: -row[0])
        by_rule = ", ".join(f"{rule} {n:,}" for n, rule in worst)
        return f"{self.kept:,} of {self.read:,} pairs kept" + (f"; removed: {by_rule}" if by_rule else "")


def added_up(reports: Sequence[CleanReport]) -> CleanReport:
    """What several cleanings by the same rules did together."""
    read, kept, normalised = (sum(getattr(one, name) for one in reports) for name in ("read", "kept", "normalised"))
    whole = CleanReport(read, kept, normalised)
    for one in reports:
        for rule, count in one.removed.items():
            whole.removed[rule] = whole.removed.get(rule, 0) + count
            whole.examples[rule] = [*whole.examples.get(rule, ()), *one.examples[rule]][:EXAMPLES]
    return whole


def clean(
    pairs: Iterable[AnyPair], cfg: Cleaning, report: CleanReport | None = None, *, workers: int = 1
) -> Iterator[AnyPair]:
    """The pairs that no rule objects to, normalised, in their order; ``report`` is filled as they go by. Rules that
    need to know nothing but a pair are asked by ``workers`` processes; the outcome is the same with any number.

    It reads no further than it is asked, unless a rule must learn from the whole text (``max_deviations``,
    ``conflicts``): then it reads all before the first pair comes.

    Raises:
        DataError: no room on the disk for what must be remembered.
    """
    report = CleanReport() if report is None else report
    with remembering() as memory:
        alone, rules = rules_alone(cfg), rules_that_remember(cfg, memory)
        for name, _ in (*alone, *rules):
            report.removed[name], report.examples[name] = 0, []
        learners = [rule.objects for rule in rules if isinstance(rule.objects, LearnedRule)]
        left = _sift(pairs, cfg, report, workers)
        if not learners:
            yield from _kept(left, rules, report)
            return
        with laid_aside(_shown(left, learners)) as again:
            yield from _kept(again, rules, report)


class Judged(NamedTuple, Generic[AnyPair]):
    pair: AnyPair
    """Normalised."""
    changed: bool
    """By normalisation."""
    removed_by: str | None


def judge(cfg: Cleaning, pairs: Iterable[AnyPair]) -> list[Judged[AnyPair]]:
    """What the rules say that know nothing but the pair."""
    rules = _rules(cfg)
    return [_judged(pair, rules) for pair in pairs]


_rules = lru_cache(1)(rules_alone)


def _judged(pair: AnyPair, rules: Sequence[CleaningRule]) -> Judged[AnyPair]:
    tidy = pair._replace(source=normalise(pair.source), target=normalise(pair.target))
    return Judged(tidy, tidy != pair, _objection(tidy, rules))


def _objection(pair: TwoSided, rules: Sequence[CleaningRule]) -> str | None:
    return next((name for name, objects in rules if objects(pair)), None)


def _sift(pairs: Iterable[AnyPair], cfg: Cleaning, report: CleanReport, workers: int) -> Iterator[AnyPair]:
    for pair, changed, why in shared(pairs, partial(judge, cfg), workers):
        report.read += 1
        report.normalised += changed
        if why:
            report.remove(why, pair)
        else:
            yield pair


def _kept(pairs: Iterable[AnyPair], rules: Sequence[CleaningRule], report: CleanReport) -> Iterator[AnyPair]:
    for pair in pairs:
        if why := _objection(pair, rules):
            report.remove(why, pair)
        else:
            report.kept += 1
            yield pair


def _shown(pairs: Iterable[AnyPair], learners: Sequence[LearnedRule]) -> Iterator[AnyPair]:
    for pair in pairs:
        for learner in learners:
            learner.learn(pair)
        yield pair


# ---- normalisation --------------------------------------------------------------------------------


def normalise(text: str) -> str:
    """Unicode NFC; runs of white space and control characters (U+2028 too) become one space, none at the ends."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()  # most lines of most files, at a tenth of the cost
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text).replace("\ufeff", "")).strip()


_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
