"""Retrieved matches, a choice of ``data.retrieval``: similar sentences of a translation memory, read before the source.

A translator reads the translations of similar sentences before the sentence itself and copies what still fits (Bulte &
Tezcan 2019, "Neural Fuzzy Repair"; Xu et al. 2020). They put matches behind the source; here they stand before it, as
all context does. While training, a sentence never sees its own translation: pairs of the very same source are no match.

Sentences that mean the like in other words are found by the encoder of a run (Xu et al. 2020; Tezcan et al. 2021).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from dragoman.config import CheckpointName, Fraction, OneOf, config, from_dict
from dragoman.text.formats.pairs import PairSource, read_pairs
from dragoman.text.fuzzy import FuzzyIndex, FuzzyMatch
from dragoman.text.lines import MATCH, TRANSLATION, MatchTexts, Pair, Sourced
from dragoman.text.memory import TranslationMemory
from dragoman.text.sentence_index import SentenceVectors


@config
class NoRetrieval:
    """No matches: each sentence is translated without a memory."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the marks that the vocabulary needs."""
        return ()


@config
class EncoderCandidates:
    """Sentences with the nearest vectors by the encoder of a run, as candidates too. A vector is the mean of the
    encoder's states, less the mean over the sentences of the run, at length 1."""

    run: str | None = None
    """Translator, or encoder of texts, that reads the sentences: a run directory. None for that of start_from."""
    checkpoint: CheckpointName = "best"
    """Its checkpoint: best, last, a step, or a checkpoint's name."""
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Least cosine of a sentence that matches although its words differ: a match by meaning, which is read with its
    source. None for none: then candidates by the encoder must be as similar as all others."""
    ngrams: bool = True
    """Take candidates by character n-grams too."""
    search: Literal["exact", "approximate"] = "exact"
    """Search for the nearest vectors; approximate is for memories of millions."""


@config
class FuzzyMatches:
    """Translations of similar sentences, each followed by a mark, the best one next to the source."""

    memory: tuple[PairSource, ...] = ()
    """Translation memories, besides the training pairs themselves."""
    training_pairs: bool = True
    """Find matches among the training pairs too."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Least similarity of a match: 1 - edits / words of the longer sentence."""
    matches: PositiveInt = 1
    """Most matches of a sentence."""
    layout: Literal["target", "pair"] = "target"
    """Texts of a match that are read: its translation (Bulte & Tezcan), or its source and its translation."""
    candidates: PositiveInt | None = 32
    """Sentences that share most character n-grams, of which the similarity is computed; None for all: exact, and slow
    where the memory is large."""
    encoder: EncoderCandidates | None = None
    """Encoder that finds as many candidates by their meaning; None for n-grams alone."""
    without: Fraction = 0.5
    """Fraction of the sentences that are read without their matches, drawn anew at each step: the model learns to
    translate either way."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the marks that the vocabulary needs."""
        by_meaning = self.encoder is not None and self.encoder.threshold is not None
        return (MATCH[0], TRANSLATION[0]) if self.layout == "pair" or by_meaning else MATCH[:1]

    def read_memory(self) -> list[Pair]:
        """Return the pairs of the memories.

        Raises:
            DataError, ConfigError: as ``read_pairs``.
        """
        return [pair for source in self.memory for pair in read_pairs(source)]

    def shown(self, matches: Sequence[FuzzyMatch]) -> tuple[MatchTexts, ...]:
        """Return the texts that are read for matches, the best one last.

        One by meaning has its source in any layout: it shows which words are others, and tells the model that less can
        be copied.
        """
        return tuple(
            (m.target,) if self.layout == "target" and m.cosine is None else (m.source, m.target)
            for m in reversed(matches)
        )

    def attach(self, pair: Sourced, index: FuzzyIndex) -> Sourced:
        """Return the pair with its matches; pairs of the same source are never one."""
        return pair._replace(matches=self.shown(self.search(index, [pair.source], others_only=True)[0]))

    def index(self, pairs: Iterable[Pair], vectors: SentenceVectors | None = None) -> FuzzyIndex:
        """Return an index of pairs.

        Args:
            vectors: those of the encoder, where there is one.

        Raises:
            ConfigError: a library is missing.
        """
        if self.encoder is None or vectors is None:
            return FuzzyIndex(pairs)
        approximate = self.encoder.search == "approximate"
        return FuzzyIndex(pairs, vectors, ngrams=self.encoder.ngrams, approximate=approximate)

    def search(
        self, index: FuzzyIndex, texts: Sequence[str], *, others_only: bool = False
    ) -> list[tuple[FuzzyMatch, ...]]:
        """Return the matches of each text, best first."""
        limits = {"threshold": self.threshold, "count": self.matches, "candidates": self.candidates}
        least = None if self.encoder is None else self.encoder.threshold
        return index.find_all(texts, **limits, least_cosine=least, others_only=others_only)


Retrieval = Annotated[NoRetrieval | FuzzyMatches, OneOf()]


def retrieval_of_run(run: Mapping[str, Any]) -> NoRetrieval | FuzzyMatches:
    """Return the choice in a run's configuration."""
    return from_dict(Retrieval, (run.get("data") or {}).get("retrieval", "no_retrieval"), where="data.retrieval")


class NoMatcher:
    """Matcher that finds nothing."""

    def find(self, text: str) -> tuple[FuzzyMatch, ...]:
        """Return no matches."""
        return ()

    def shown(self, matches: Sequence[FuzzyMatch]) -> tuple[MatchTexts, ...]:
        """Return no texts."""
        return ()


class MemoryMatcher(NoMatcher):
    """Finder of matches in a memory, as a run has learnt to read them."""

    def __init__(self, cfg: FuzzyMatches, memory: TranslationMemory, vectors: SentenceVectors | None = None):
        """
        Args:
            vectors: those of the run's encoder of matches, where it has one.

        Raises:
            ConfigError: a library is missing.
        """
        self.cfg, self.index = cfg, cfg.index(memory.pairs(), vectors)
        self._search = lru_cache(1 << 16)(lambda text: cfg.search(self.index, [text])[0])

    def find(self, text: str) -> tuple[FuzzyMatch, ...]:
        """Return the matches of a text, best first."""
        return self._search(text)

    def shown(self, matches: Sequence[FuzzyMatch]) -> tuple[MatchTexts, ...]:
        """Return the texts that are read for matches."""
        return self.cfg.shown(matches)


NO_MATCHER = NoMatcher()
