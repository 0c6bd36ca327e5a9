"""Segmentation of training texts into subwords: a choice of ``data.segmentation``, sampled anew each time a pair is
used.

Validation and translation always use the best segmentation. B pairs of a batch, S and T their longest sides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field, NonNegativeFloat

from dragoman.config import OneOf, config, kind_of
from dragoman.data.corruption import IdArray, RandomDraw
from dragoman.data.padding import padded_array
from dragoman.errors import ConfigError
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.tokens.sampling import SegmentationSampler, bpe_dropout, unigram_sampling
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bpe, Loaded, TokenizerConfig, Unigram

Sides = Literal["both", "source", "target"]
PairSamplers = tuple[SegmentationSampler | None, SegmentationSampler | None]
"""Samplers of source and target; None for a side that keeps its stored segmentation."""


@config
class BestSegmentation:
    """The best segmentation of every text, the same each time."""

    def check(self, tokenizers: tuple[TokenizerConfig, TokenizerConfig]) -> None:
        pass

    def samplers(self, source: Tokenizer, target: Tokenizer) -> PairSamplers:
        return None, None


@config
class BpeDropout:
    """BPE-dropout: merges of a BPE tokenizer are left out at random (Provilkov et al., arXiv:1910.13267)."""

    rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Probability that a merge is left out: 0.1 gives a quarter to a third more tokens, 1 single bytes."""
    sides: Sides = "both"
    """Sides of a pair that are sampled."""

    def check(self, tokenizers: tuple[TokenizerConfig, TokenizerConfig]) -> None:
        """Check that the tokenizers of source and target can be sampled from.

        Raises:
            ConfigError: one is of another kind.
        """
        _check_kinds(self.sides, tokenizers, Bpe)

    def samplers(self, source: Tokenizer, target: Tokenizer) -> PairSamplers:
        """Return the samplers of both sides.

        Raises:
            ConfigError: a tokenizer that was loaded is of another kind.
        """
        return (
            bpe_dropout(source, self.rate) if self.sides != "target" else None,
            bpe_dropout(target, self.rate) if self.sides != "source" else None,
        )


@config
class UnigramSampling:
    """Sampling from the language model of a unigram tokenizer (Kudo, arXiv:1804.10959)."""

    alpha: NonNegativeFloat = 0.2
    """Exponent of a segmentation's probability: 0 for all alike, a large one for the best almost always."""
    sides: Sides = "both"
    """Sides of a pair that are sampled."""

    def check(self, tokenizers: tuple[TokenizerConfig, TokenizerConfig]) -> None:
        """Check that the tokenizers of source and target can be sampled from.

        Raises:
            ConfigError: one is of another kind.
        """
        _check_kinds(self.sides, tokenizers, Unigram)

    def samplers(self, source: Tokenizer, target: Tokenizer) -> PairSamplers:
        """Return the samplers of both sides.

        Raises:
            ConfigError: a tokenizer that was loaded is of another kind.
        """
        return (
            unigram_sampling(source, self.alpha) if self.sides != "target" else None,
            unigram_sampling(target, self.alpha) if self.sides != "source" else None,
        )


Segmentation = Annotated[BestSegmentation | BpeDropout | UnigramSampling, OneOf()]


def _check_kinds(sides: Sides, tokenizers: tuple[TokenizerConfig, TokenizerConfig], wanted: type) -> None:
    for side, tokenizer in zip(("source", "target"), tokenizers, strict=True):
        if sides in ("both", side) and not isinstance(tokenizer, wanted | Loaded):
            found, needed = kind_of(type(tokenizer)), kind_of(wanted)
            raise ConfigError(
                f"kind: needs a tokenizer of kind {needed} on the {side} side, and this is {found}: set its "
                f"kind to {needed}, or another data.segmentation"
            )


@dataclass(frozen=True)
class SampledPairs:
    """Pairs of a corpus in segmentations that are a function of (seed, step, row, side) alone."""

    corpus: ParallelCorpus
    samplers: PairSamplers
    seed: int
    step: int
    longest: int | None
    """Largest number of ids of a side; the stored segmentation replaces a longer sample. None for no limit."""

    def __getitem__(self, i: int) -> tuple[IdArray, IdArray]:
        source, target = self.corpus[i]
        return self._sampled(i, 0, source), self._sampled(i, 1, target)

    def padded(self, rows: Int[np.ndarray, "B"]) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B T"]]:
        """Return the ids of these pairs, one per row, padded."""
        sources, targets = zip(*(self[row] for row in rows.tolist()), strict=True)
        return padded_array(sources), padded_array(targets)

    def _sampled(self, row: int, side: int, ids: IdArray) -> IdArray:
        if (sampler := self.samplers[side]) is None:
            return ids
        sampled = sampler.resegment(ids.tolist(), _uniform(RandomDraw([self.seed, self.step, row, side])))
        return ids if self.longest is not None and len(sampled) > self.longest else np.array(sampled, np.int64)


def _uniform(draw: RandomDraw) -> Iterator[float]:
    while True:
        yield from draw.uniform(256).tolist()
