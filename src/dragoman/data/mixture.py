"""Mixture of several sources in training: a choice of ``data.mixture``.

A share is a fraction of the pairs that are drawn; the shares of all sources sum to 1. A small source with a large share
is repeated, every pair of it equally often (``rounds.py``).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from dragoman.config import OneOf, at, config, unknown
from dragoman.errors import ConfigError
from dragoman.text.mix import check_weights, source_fractions

Sizes = Mapping[str, int]
"""Number of pairs of each source, by name."""


@config
class Concatenate:
    """Every pair once per epoch, regardless of its source."""

    def check(self, names: Sequence[str]) -> None:
        pass

    def used(self, name: str) -> bool:
        return True

    def shares(self, sizes: Sizes, done: float) -> list[float]:
        return source_fractions(list(sizes.values()), [1.0] * len(sizes), 1.0)


@config
class Temperature:
    """Shares in proportion to size^(1/temperature) (Arivazhagan et al., arXiv:1907.05019, section 4.2)."""

    temperature: Annotated[float, Field(ge=1)] = 5.0
    """1 for shares in proportion to size; higher values raise the shares of small sources."""

    def check(self, names: Sequence[str]) -> None:
        pass

    def used(self, name: str) -> bool:
        return True

    def shares(self, sizes: Sizes, done: float) -> list[float]:
        return source_fractions(list(sizes.values()), [1.0] * len(sizes), self.temperature)


@config
class Weights:
    """Shares in proportion to given weights, regardless of the sources' sizes."""

    weights: dict[str, float]
    """Weight of each source, by name; 0 leaves it out."""

    def check(self, names: Sequence[str]) -> None:
        """Check that every source has a weight and nothing else has.

        Raises:
            ConfigError: a source has no weight, a weight has no source or is negative, or all are zero.
        """
        for name in self.weights:
            if name not in names:
                raise ConfigError(unknown("weights", name, names))
        for name in names:
            if name not in self.weights:
                raise ConfigError(f"weights: none for {name!r}: give each source one, or 0 to leave it out")
        check_weights(self.weights.values())

    def used(self, name: str) -> bool:
        return self.weights[name] > 0

    def shares(self, sizes: Sizes, done: float) -> list[float]:
        return source_fractions([1] * len(sizes), [self.weights[name] for name in sizes], 1.0)


@config
class Stage:
    """Weights from a fraction of the run on."""

    begins: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of the run after which these weights apply: 0 for its beginning, 0.5 for its second half."""
    weights: dict[str, float]
    """Weight of each source, by name; 0 leaves it out until a later stage."""


@config
class Stages:
    """Weights that change during the run: for instance general text first and one's own text at the end."""

    stages: tuple[Stage, ...]
    """Stages in order; the first begins at 0."""

    def check(self, names: Sequence[str]) -> None:
        """Check that stages begin one after the other, with valid weights.

        Raises:
            ConfigError: stages do not begin one after the other from 0, or weights are invalid.
        """
        begins = [stage.begins for stage in self.stages]
        if begins[:1] != [0] or any(after <= before for before, after in pairwise(begins)):
            raise ConfigError(f"stages: begin at {begins}: the first at 0, each later one after the one before it")
        for i, stage in enumerate(self.stages):
            with at(f"stages.{i}"):
                Weights(weights=stage.weights).check(names)

    def used(self, name: str) -> bool:
        return any(stage.weights[name] > 0 for stage in self.stages)

    def shares(self, sizes: Sizes, done: float) -> list[float]:
        now = max((stage for stage in self.stages if stage.begins <= done), key=lambda stage: stage.begins)
        return Weights(weights=now.weights).shares(sizes, done)


SourceMixture = Annotated[Concatenate | Temperature | Weights | Stages, OneOf()]
