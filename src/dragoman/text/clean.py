"""Cleaning: each pair is normalised, then the first rule that objects to it removes it and is counted.

The rules are in ``rules.py``. Pairs stream through: what must be remembered of them is on disk (``remembered.py``), so
memory does not grow with their number. Rules that must know the whole text first see it while it is laid aside.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dragoman.text.lines import Pair
from dragoman.text.remembered import laid_aside, remembering
from dragoman.text.rules import Cleaning, Learner, Rule, rules_in_force

__all__ = ["EXAMPLES", "CleanReport", "Cleaning", "clean", "normalise"]

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

    def __str__(self) -> str:
        """One line; names the rules that removed something, the harshest first."""
        worst = sorted(((n, rule) for rule, n in self.removed.items() if n), key=lambda row: -row[0])
        by_rule = ", ".join(f"{rule} {n:,}" for n, rule in worst)
        return f"{self.kept:,} of {self.read:,} pairs kept" + (f"; removed: {by_rule}" if by_rule else "")


def clean(pairs: Iterable[Pair], cfg: Cleaning, report: CleanReport | None = None) -> Iterator[Pair]:
    """The pairs that no rule objects to, normalised, in their order; ``report`` is filled as they go by.

    It reads no further than it is asked, unless a rule must learn from the whole text (``max_deviations``,
    ``conflicts``): then it reads all before the first pair comes.

    Raises:
        DataError: no room on the disk for what must be remembered.
    """
    report = CleanReport() if report is None else report
    with remembering() as memory:
        rules = rules_in_force(cfg, memory)
        for name, _ in rules:
            report.removed[name], report.examples[name] = 0, []
        learners = [rule.objects for rule in rules if isinstance(rule.objects, Learner)]
        alone = next((i for i, rule in enumerate(rules) if rule.objects in learners), len(rules))
        left = _sift(_normalised(pairs, report), rules[:alone], report)
        if not learners:
            yield from _counted(left, report)
            return
        with laid_aside(_shown(left, learners)) as again:
            yield from _counted(_sift(again, rules[alone:], report), report)


def _normalised(pairs: Iterable[Pair], report: CleanReport) -> Iterator[Pair]:
    for pair in pairs:
        report.read += 1
        tidy = Pair(normalise(pair.source), normalise(pair.target))
        report.normalised += tidy != pair
        yield tidy


def _sift(pairs: Iterable[Pair], rules: Sequence[Rule], report: CleanReport) -> Iterator[Pair]:
    for pair in pairs:
        if name := next((name for name, objects in rules if objects(pair)), None):
            report.removed[name] += 1
            if len(report.examples[name]) < EXAMPLES:
                report.examples[name].append(pair)
        else:
            yield pair


def _shown(pairs: Iterable[Pair], learners: Sequence[Learner]) -> Iterator[Pair]:
    for pair in pairs:
        for learner in learners:
            learner.learn(pair)
        yield pair


def _counted(pairs: Iterable[Pair], report: CleanReport) -> Iterator[Pair]:
    for pair in pairs:
        report.kept += 1
        yield pair


# ---- normalisation --------------------------------------------------------------------------------


def normalise(text: str) -> str:
    """Unicode NFC; runs of white space and control characters (U+2028 too) become one space, none at the ends."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()  # most lines of most files, at a tenth of the cost
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text).replace("\ufeff", "")).strip()


_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
