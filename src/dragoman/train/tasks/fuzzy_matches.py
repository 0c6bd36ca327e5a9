"""Fuzzy matches of a run's pairs: those of a translation memory and of the training pairs (``data.retrieval``)."""

import dataclasses
from collections.abc import Iterable

from dragoman.errors import DataError
from dragoman.text.cleaning.split import PairSplit
from dragoman.text.fuzzy import FuzzyIndex
from dragoman.text.lines import Pair, Sourced
from dragoman.text.retrieval import FuzzyMatches

MatchCounts = dict[str, dict[str, int]]
"""Number of pairs, and of those with matches, by set."""


def attach_matches(split: PairSplit[Sourced], cfg: FuzzyMatches) -> tuple[PairSplit[Sourced], MatchCounts]:
    """Return the sets with the matches of each pair: of the memory, and of training pairs with the same tags.

    A pair is never a match of a pair with the same source, so no set sees its own translations.

    Raises:
        DataError: no training pair has a match, or a memory that cannot be read.
        ConfigError: a library is missing.
    """
    memory = cfg.read_memory()
    names = ("train", "valid", "test", "hard")
    sets: dict[str, list[Sourced]] = {name: list(getattr(split, name)) for name in names}
    learnt = sets["train"] if cfg.training_pairs else []
    kinds = dict.fromkeys(pair.tags for pairs in sets.values() for pair in pairs)
    indices = {tags: FuzzyIndex([*memory, *_pairs_with(learnt, tags)]) for tags in kinds}
    for name, pairs in sets.items():
        sets[name] = [cfg.attach(pair, indices[pair.tags]) for pair in pairs]
    counts = {name: {"pairs": len(pairs), "with matches": _matched(pairs)} for name, pairs in sets.items()}
    if not counts["train"]["with matches"]:
        raise DataError(
            f"data.retrieval: no training pair has a match of similarity {cfg.threshold:g} or more: lower the "
            "threshold, name a memory that is like the text, or leave it out"
        )
    return dataclasses.replace(split, **sets), counts


def describe_matches(counts: MatchCounts) -> str:
    """Return one line on how many pairs have matches."""
    train, valid = counts["train"], counts["valid"]
    return (
        f"fuzzy matches: {train['with matches']:,} of {train['pairs']:,} training pairs have some, "
        f"{valid['with matches']:,} of {valid['pairs']:,} for validation"
    )


def _pairs_with(pairs: Iterable[Sourced], tags: str) -> list[Pair]:
    return [pair.pair for pair in pairs if pair.tags == tags]


def _matched(pairs: Iterable[Sourced]) -> int:
    return sum(bool(pair.matches) for pair in pairs)
