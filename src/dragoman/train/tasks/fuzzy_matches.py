"""Fuzzy matches of a run's pairs: those of a translation memory and of the training pairs (``data.retrieval``)."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from dragoman.decode.sentence_encoder import SentenceEncoder
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.cleaning.split import PairSplit
from dragoman.text.fuzzy import FuzzyIndex, FuzzyMatch
from dragoman.text.lines import Pair, Sourced
from dragoman.text.retrieval import FuzzyMatches, NoRetrieval
from dragoman.text.store import chunks
from dragoman.text.vector_index import required_library
from dragoman.train.warm_start import WarmStart

SETS = ("train", "valid", "test", "hard")
CHUNK = 4096
"""Pairs whose matches are searched at a time."""
MatchCounts = dict[str, dict[str, int]]
"""Number of pairs, and of those with matches, by set."""


class TrainingVectors:
    """Vectors of all sentences of a run and its memory, each computed once."""

    def __init__(self, encoder: SentenceEncoder, texts: Iterable[str]):
        """Read the texts, whose mean vector the encoder keeps."""
        self.encoder, self.rows = encoder, {text: i for i, text in enumerate(dict.fromkeys(map(normalise, texts)))}
        self.all = encoder.centre(list(self.rows))

    def of_memory(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Return the vectors of texts that were read."""
        return self.all[[self.rows[text] for text in texts]]

    of_queries = of_memory


def load_encoder(
    cfg: NoRetrieval | FuzzyMatches, start_from: WarmStart | None, language: str | None
) -> SentenceEncoder | None:
    """Return the encoder that finds matches; None where there are none, or n-grams alone find them.

    Args:
        start_from: the run that this one starts from, whose encoder is the default.
        language: of this run's sources, where it is known.

    Raises:
        ConfigError: no run is named, its sources are in another language, or a library is missing.
        CheckpointError: no such run or checkpoint, a damaged one, or one without an encoder that reads text.
    """
    if isinstance(cfg, NoRetrieval) or cfg.encoder is None:
        return None
    where, run = "data.retrieval.encoder.run", cfg.encoder.run or (start_from and start_from.run)
    if run is None:
        raise ConfigError(
            f"{where}: must be given: a run that is yet to be trained has no encoder of its own, and no start_from "
            "names an earlier one"
        )
    if cfg.encoder.search == "approximate":
        required_library("data.retrieval.encoder.search: ")
    try:
        encoder = SentenceEncoder.load(run, cfg.encoder.checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    theirs = ((encoder.run.config.get("data") or {}).get("cleaning") or {}).get("source_language")
    if language and theirs and theirs != language:
        raise ConfigError(
            f"{where}: {run} reads {theirs}, and the sources of this run are in {language} "
            "(data.cleaning.source_language): name a run that reads them"
        )
    return encoder


def attach_matches(
    split: PairSplit[Sourced], cfg: FuzzyMatches, encoder: SentenceEncoder | None = None
) -> tuple[PairSplit[Sourced], MatchCounts]:
    """Return the sets with the matches of each pair: of the memory, and of training pairs with the same tags.

    A pair is never a match of a pair with the same source, so no set sees its own translations.

    Raises:
        DataError: no training pair has a match, or a memory that cannot be read.
        ConfigError: a library is missing.
    """
    memory = cfg.read_memory()
    sets: dict[str, list[Sourced]] = {name: list(getattr(split, name)) for name in SETS}
    learnt = sets["train"] if cfg.training_pairs else []
    vectors = None
    if encoder is not None:
        texts = (pair.source for pairs in (memory, *sets.values()) for pair in pairs)
        vectors = TrainingVectors(encoder, texts)
    counts: MatchCounts = {}
    kinds = dict.fromkeys(pair.tags for pairs in sets.values() for pair in pairs)
    indices = {tags: cfg.index([*memory, *_pairs_with(learnt, tags)], vectors) for tags in kinds}
    for name, pairs in sets.items():
        found = _search(pairs, cfg, indices)
        sets[name] = [pair._replace(matches=cfg.shown(some)) for pair, some in zip(pairs, found, strict=True)]
        counts[name] = {"pairs": len(pairs), "with matches": sum(map(bool, found))}
        if encoder is not None:
            counts[name]["by meaning alone"] = sum(bool(some) and some[0].cosine is not None for some in found)
    if not counts["train"]["with matches"]:
        least = cfg.encoder and cfg.encoder.threshold
        meant = f", or of cosine {least:g}" if least else ""
        raise DataError(
            f"data.retrieval: no training pair has a match of similarity {cfg.threshold:g} or more{meant}: lower the "
            "threshold, name a memory that is like the text, or leave it out"
        )
    return dataclasses.replace(split, **sets), counts


def describe_matches(counts: MatchCounts) -> str:
    """Return one line on how many pairs have matches."""
    train, valid = counts["train"], counts["valid"]
    meant = f" ({train['by meaning alone']:,} by meaning alone)" if "by meaning alone" in train else ""
    return (
        f"fuzzy matches: {train['with matches']:,} of {train['pairs']:,} training pairs have some{meant}, "
        f"{valid['with matches']:,} of {valid['pairs']:,} for validation"
    )


def _search(
    pairs: Sequence[Sourced], cfg: FuzzyMatches, indices: Mapping[str, FuzzyIndex]
) -> list[tuple[FuzzyMatch, ...]]:
    """Return the matches of each pair, of those with its tags."""
    found: list[tuple[FuzzyMatch, ...]] = [()] * len(pairs)
    for tags, index in indices.items():
        rows = [row for row, pair in enumerate(pairs) if pair.tags == tags]
        for some in chunks(rows, CHUNK):
            matches = cfg.search(index, [pairs[row].source for row in some], others_only=True)
            for row, these in zip(some, matches, strict=True):
                found[row] = these
    return found


def _pairs_with(pairs: Iterable[Sourced], tags: str) -> list[Pair]:
    return [pair.pair for pair in pairs if pair.tags == tags]
