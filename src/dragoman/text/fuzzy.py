"""Fuzzy matches: pairs of a translation memory whose source is like a text, by edit distance, or means the like.

Candidates come from an index of character n-grams, from the vectors of an encoder, or from both. The similarity that
counts is exact: 1 - edits / units of the longer text (the fuzzy match score of Bulte & Tezcan 2019). A unit is a word,
a sign, a placeholder, or a character of a script without spaces. A candidate that is not similar enough may still match
by the cosine of its vector (Xu et al. 2020). It comes after all that are, because less of its translation can be
copied.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import regex

from dragoman.errors import ConfigError
from dragoman.text.amount import SPACELESS
from dragoman.text.cleaning.clean import normalise
from dragoman.text.lines import Pair
from dragoman.text.memory import with_placeholders
from dragoman.text.ngram_index import NgramIndex
from dragoman.text.placeholders import find_placeholders
from dragoman.text.sentence_index import Cosines, SentenceIndex, SentenceVectors

_UNIT = regex.compile(rf"\{{[^{{}}]*\}}|<[^<>]*>|{SPACELESS}\p{{M}}*|(?:(?!{SPACELESS})[\w\p{{M}}])+|[^\w\s]")


class FuzzyMatch(NamedTuple):
    """Pair of a memory that is like a text."""

    source: str
    target: str
    """Translation, with the placeholders of the text where it is clear which is which."""
    similarity: float
    """From 0 to 1."""
    cosine: float | None = None
    """Cosine of the vectors, for a match by meaning; None for one that is similar enough."""


class FuzzyIndex:
    """Index of a translation memory."""

    def __init__(
        self,
        pairs: Iterable[Pair],
        vectors: SentenceVectors | None = None,
        *,
        ngrams: bool = True,
        approximate: bool = False,
    ):
        """
        Args:
            vectors: those of an encoder, whose nearest sources are candidates; None for none.
            ngrams: take candidates by character n-grams.
            approximate: search the vectors approximately; see ``VectorIndex``.

        Raises:
            ConfigError: the library for edit distances is missing, or that for approximate search.
        """
        self.distance = _edit_distance()
        tidy = (Pair(normalise(source), normalise(target)) for source, target in pairs)
        self.pairs = list(dict.fromkeys(pair for pair in tidy if all(pair)))
        sources = [pair.source for pair in self.pairs]
        self.ngrams = NgramIndex(sources) if ngrams else None
        self.sentences = None if vectors is None else SentenceIndex(sources, vectors, approximate=approximate)

    def __len__(self) -> int:
        return len(self.pairs)

    def find(self, text: str, **how: Any) -> tuple[FuzzyMatch, ...]:
        """Return the matches of a text; see ``find_all``."""
        return self.find_all([text], **how)[0]

    def find_all(
        self,
        texts: Sequence[str],
        *,
        threshold: float,
        count: int,
        candidates: int | None,
        least_cosine: float | None = None,
        others_only: bool = False,
    ) -> list[tuple[FuzzyMatch, ...]]:
        """Return the matches of each text, best first, no two with the same translation; earlier pairs first among
        equals. No text influences another.

        Args:
            threshold: least similarity.
            count: most matches.
            candidates: pairs whose similarity is computed, those that share most n-grams, and as many sources with the
                nearest vectors; None for all.
            least_cosine: least cosine of a match that is not similar enough; None for no such matches.
            others_only: leave out pairs of the very same source, and of one that the text is but a prefix before, such
                as "translate English to German: ".
        """
        texts = [normalise(text) for text in texts]
        nearest = self._nearest(texts, candidates)
        limits = {"threshold": threshold, "least_cosine": least_cosine, "others_only": others_only}
        return [
            self._best(text, self._candidates(text, cosines, candidates), cosines, count, **limits)
            for text, cosines in zip(texts, nearest, strict=True)
        ]

    def _nearest(self, texts: Sequence[str], count: int | None) -> list[Cosines]:
        """Return the cosines of each text's nearest sources; none for a text without a unit, which means nothing."""
        if self.sentences is None:
            return [{} for _ in texts]
        some = list(dict.fromkeys(text for text in texts if units(text)))
        found = dict(zip(some, self.sentences.candidates(some, count), strict=True))
        return [found.get(text, {}) for text in texts]

    def _candidates(self, text: str, cosines: Cosines, count: int | None) -> Iterable[int]:
        if self.ngrams is None:
            return cosines
        if count is None:
            return range(len(self.pairs))
        return {*self.ngrams.candidates(text, count).tolist(), *cosines}

    def _best(
        self,
        text: str,
        rows: Iterable[int],
        cosines: Mapping[int, float],
        count: int,
        *,
        threshold: float,
        least_cosine: float | None,
        others_only: bool,
    ) -> tuple[FuzzyMatch, ...]:
        own, found = units(text), dict[str, _Ranked]()
        for row in rows if own else ():
            source, target = self.pairs[row]
            if others_only and text.endswith(source):
                continue
            cosine = cosines.get(row, -1.0)
            means_the_like = least_cosine is not None and cosine >= least_cosine
            cutoff = None if means_the_like else threshold
            similarity = self.distance.normalized_similarity(own, _units(source), score_cutoff=cutoff)
            if similarity >= threshold:
                found[target] = max(found.get(target, _WORST), (1, similarity, -row, similarity))
            elif means_the_like:
                found[target] = max(found.get(target, _WORST), (0, cosine, -row, similarity))
        best = sorted(found.values(), reverse=True)[:count]
        return tuple(
            _match(text, self.pairs[-row], similarity, None if similar else score)
            for similar, score, row, similarity in best
        )


_Ranked = tuple[int, float, int, float]
"""1 for a similar source and 0 for one by meaning; what ranks it among these; its row, negative; its similarity."""
_WORST: _Ranked = (-1, 0.0, 0, 0.0)


def units(text: str) -> tuple[str, ...]:
    """Return the units of a text whose edits are counted, whatever their case. One placeholder or tag is like another:
    those of the text replace those of a match."""
    found = _UNIT.findall(text.casefold())
    return tuple(unit[0] + unit[-1] if len(unit) > 1 and unit[0] in "{<" else unit for unit in found)


_units = lru_cache(1 << 17)(units)


def _match(text: str, pair: Pair, similarity: float, cosine: float | None) -> FuzzyMatch:
    old, new = find_placeholders(pair.source), find_placeholders(text)
    filled = with_placeholders(pair, new) if old and len(old) == len(new) else None
    return FuzzyMatch(pair.source, pair.target if filled is None else filled, similarity, cosine)


def _edit_distance():
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        raise ConfigError("fuzzy matches need rapidfuzz: pip install rapidfuzz (the extra retrieval)") from None
    return Levenshtein
