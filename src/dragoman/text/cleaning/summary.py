"""Summary of a text: counts, lengths, ratios, characters and scripts, gathered in one pass.

Memory grows with the number of different characters and lengths, not of pairs; the pairs seen so far are on disk.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dragoman.text.cleaning.clean import normalise
from dragoman.text.cleaning.remembered import SeenTexts, temporary_database, text_hash
from dragoman.text.cleaning.rules import is_copy, log_ratio
from dragoman.text.cleaning.scripts import script_of
from dragoman.text.lines import Pair

RATIOS = (0.25, 0.5, 0.67, 0.8, 0.91, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Edges between the bars of the histogram of ratios."""


@dataclass
class SideSummary:
    """Counts of the texts of one side."""

    different: int = 0
    """Number of texts that differ from all before them."""
    empty: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    """Number of texts by length in characters."""
    words: Counter[int] = field(default_factory=Counter)
    """Number of texts by length in words between spaces."""
    characters: Counter[str] = field(default_factory=Counter)

    def scripts(self) -> Counter[str]:
        """Return the number of letters in each script."""
        found: Counter[str] = Counter()
        for character, count in self.characters.items():
            if script := script_of(character):
                found[script] += count
        return found

    def add(self, text: str) -> None:
        """Count one text."""
        self.empty += not text
        self.lengths[len(text)] += 1
        self.words[len(text.split())] += 1
        self.characters.update(text)


@dataclass
class Summary:
    """Counts of normalised pairs, as cleaning would see them."""

    pairs: int = 0
    untidy: int = 0
    """Number of pairs that normalisation changes."""
    duplicates: int = 0
    """Number of pairs that occurred before."""
    copies: int = 0
    """Number of pairs whose sides are the same except for case, neither empty."""
    conflicts: int = 0
    """Number of different pairs whose source occurred before with another target."""
    ratios: list[int] = field(default_factory=lambda: [0] * (len(RATIOS) + 1))
    """Number of pairs by target length over source length, 10 added to both, between the ``RATIOS``."""
    ratio: float = 1.0
    """Geometric mean of that ratio."""
    deviation: float = 0.0
    """Standard deviation of its logarithm."""
    source: SideSummary = field(default_factory=SideSummary)
    target: SideSummary = field(default_factory=SideSummary)


def summarise(pairs: Iterable[Pair]) -> Summary:
    """Count all pairs in one pass."""
    summary, logs, squares = Summary(), 0.0, 0.0
    with temporary_database() as memory:
        pairs_seen, sources, targets = (SeenTexts(memory, name) for name in ("pairs", "sources", "targets"))
        for pair in pairs:
            tidy = Pair(normalise(pair.source), normalise(pair.target))
            summary.pairs += 1
            summary.untidy += tidy != pair
            repeated = pairs_seen.seen_before(text_hash(*tidy))
            known_source = sources.seen_before(text_hash(tidy.source))
            summary.duplicates += repeated
            summary.conflicts += known_source and not repeated
            summary.source.different += not known_source
            summary.target.different += not targets.seen_before(text_hash(tidy.target))
            summary.copies += bool(tidy.source) and is_copy(tidy)
            summary.source.add(tidy.source)
            summary.target.add(tidy.target)
            value = log_ratio(tidy)
            summary.ratios[sum(math.exp(value) >= edge for edge in RATIOS)] += 1
            logs, squares = logs + value, squares + value * value
    if summary.pairs:
        mean = logs / summary.pairs
        summary.ratio, summary.deviation = math.exp(mean), math.sqrt(max(0.0, squares / summary.pairs - mean * mean))
    return summary


def total(counts: Mapping[int, int]) -> int:
    """Return the sum of all numbers, each times its count."""
    return sum(number * times for number, times in counts.items())


def percentile(counts: Mapping[int, int], fraction: float) -> int:
    """Return the smallest number that at least this fraction (0 to 1) of those counted do not exceed; 0 if none were
    counted."""
    below, needed = 0, fraction * sum(counts.values())
    for number in sorted(counts):
        below += counts[number]
        if below >= needed:
            return number
    return 0


def histogram(counts: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """Return bars (low, high, count) whose widths double: 0, 1, 2 to 3, 4 to 7, up to the largest number, none left
    out."""
    bars: Counter[int] = Counter()
    for number, times in counts.items():
        bars[number.bit_length()] += times
    bounds = [(0, 0), *((2 ** (bit - 1), 2**bit - 1) for bit in range(1, max(bars, default=0) + 1))]
    return [(low, high, bars[bit]) for bit, (low, high) in enumerate(bounds)]
