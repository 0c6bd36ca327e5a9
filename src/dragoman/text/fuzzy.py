"""Fuzzy matches: pairs of a translation memory whose source is like a text, by edit distance.

Candidates come from an index of character n-grams; the similarity that counts is exact: 1 - edits / units of the longer
text (the fuzzy match score of Bulte & Tezcan 2019). A unit is a word, a sign, a placeholder, or a character of a
script without spaces.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import regex

from dragoman.errors import ConfigError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.lines import Pair
from dragoman.text.memory import with_placeholders
from dragoman.text.ngram_index import NgramIndex
from dragoman.text.placeholders import find_placeholders

_SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_UNIT = regex.compile(rf"\{{[^{{}}]*\}}|<[^<>]*>|{_SPACELESS}\p{{M}}*|(?:(?!{_SPACELESS})[\w\p{{M}}])+|[^\w\s]")


class FuzzyMatch(NamedTuple):
    """Pair of a memory that is like a text."""

    source: str
    target: str
    """Translation, with the placeholders of the text where it is clear which is which."""
    similarity: float
    """From 0 to 1."""


class FuzzyIndex:
    """Index of a translation memory."""

    def __init__(self, pairs: Iterable[Pair]):
        """
        Raises:
            ConfigError: the library for edit distances is missing.
        """
        self.distance = _edit_distance()
        tidy = (Pair(normalise(source), normalise(target)) for source, target in pairs)
        self.pairs = list(dict.fromkeys(pair for pair in tidy if all(pair)))
        self.index = NgramIndex([pair.source for pair in self.pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def find(
        self, text: str, *, threshold: float, count: int, candidates: int | None, others_only: bool = False
    ) -> tuple[FuzzyMatch, ...]:
        """Return the matches of a text, best first, no two with the same translation; earlier pairs first among equals.

        Args:
            threshold: least similarity.
            count: most matches.
            candidates: pairs whose similarity is computed, those that share most n-grams; None for all.
            others_only: leave out pairs of the very same source, and of one that the text is but a prefix before, such
                as "translate English to German: ".
        """
        text = normalise(text)
        own, found = units(text), dict[str, tuple[float, int]]()
        for row in self._candidates(text, candidates):
            source, target = self.pairs[row]
            if others_only and text.endswith(source):
                continue
            similarity = self.distance.normalized_similarity(own, _units(source), score_cutoff=threshold)
            if similarity >= threshold and own:
                found[target] = max(found.get(target, (0.0, 0)), (similarity, -row))
        best = sorted(found.values(), reverse=True)[:count]
        return tuple(_match(text, self.pairs[-row], similarity) for similarity, row in best)

    def _candidates(self, text: str, count: int | None) -> list[int]:
        rows = np.arange(len(self.pairs)) if count is None else self.index.candidates(text, count)
        return rows.tolist()


def units(text: str) -> tuple[str, ...]:
    """Return the units of a text whose edits are counted, whatever their case. One placeholder or tag is like another:
    those of the text replace those of a match."""
    found = _UNIT.findall(text.casefold())
    return tuple(unit[0] + unit[-1] if len(unit) > 1 and unit[0] in "{<" else unit for unit in found)


_units = lru_cache(1 << 17)(units)


def _match(text: str, pair: Pair, similarity: float) -> FuzzyMatch:
    old, new = find_placeholders(pair.source), find_placeholders(text)
    filled = with_placeholders(pair, new) if old and len(old) == len(new) else None
    return FuzzyMatch(pair.source, pair.target if filled is None else filled, similarity)


def _edit_distance():
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        raise ConfigError("fuzzy matches need rapidfuzz: pip install rapidfuzz (the extra retrieval)") from None
    return Levenshtein
