"""From failures to data: what a translator's training had to say about sentences that it gets wrong, what to add, and a
hard set that only grows.

    from dragoman import inspect

    report = inspect.trace_failures(subject, failures, pool=more_pairs)
    inspect.grow_hard_set(run / "data" / "hard.jsonl", report.for_hard_set)
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import regex

from dragoman import durable
from dragoman.errors import ConfigError, DataError
from dragoman.inspect.neighbours import Neighbour, nearest_by_encoder, nearest_by_ngrams
from dragoman.inspect.subject import Subject
from dragoman.text.cleaning.clean import normalise_pair
from dragoman.text.cleaning.split import Likeness, letters
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.held_out import held_out_line, read_held_out
from dragoman.text.lines import Sourced
from dragoman.text.words import LETTER

RARE = 5
"""Fewest training pairs with a word, so that it counts as known."""
COVERED = 3
"""Number of proposals for each word that is missing."""
PROPOSALS = 100
"""Largest number of proposals, unless told otherwise."""
CHUNK = 10_000


@dataclass(frozen=True)
class NearPair:
    """Training pair near a failure, with its text."""

    row: int
    """Number of the pair in the run's training text, counted from 0."""
    nearness: float
    source: str
    target: str


@dataclass(frozen=True)
class TracedFailure:
    """One sentence that fails."""

    source: str
    target: str
    """Its reference."""
    by_ngrams: tuple[NearPair, ...]
    by_encoder: tuple[NearPair, ...]
    rare_source: dict[str, int]
    """Words of the source in fewer than ``RARE`` training pairs, with their number; 0 is never."""
    rare_target: dict[str, int]
    """The same of the reference."""
    trained: bool
    """True where the training text has this very source."""


@dataclass(frozen=True)
class FailureReport:
    """All failures, and what to add."""

    pairs: int
    """Training pairs of the run."""
    failures: tuple[TracedFailure, ...]
    missing: dict[str, int]
    """Rare words of the sources, with the number of failures that have them, the commonest first."""
    proposals: tuple[Sourced, ...]
    """Pairs of the pool that have these words, the most useful first, and that are like no failure."""
    for_hard_set: tuple[Sourced, ...]
    """Failures that training did not have."""

    def plain(self) -> dict[str, Any]:
        """Return the report as what JSON can hold."""
        kept = asdict(self)
        kept["proposals"] = [pair.pair._asdict() for pair in self.proposals]
        del kept["for_hard_set"]
        return kept


def trace_failures(
    subject: Subject,
    failures: Sequence[Sourced],
    *,
    pool: Sequence[Sourced] = (),
    held_out: Sequence[Sourced] = (),
    nearest: int = 3,
    encode: int = 20_000,
    propose: int = PROPOSALS,
    progress: Callable[[int, int], None] | None = None,
) -> FailureReport:
    """Look up failures in the training text of a run.

    Args:
        failures: sources with their references.
        pool: pairs that may be added to training.
        held_out: pairs that proposals must not be like, such as an earlier hard set; the failures always are among
            them.
        nearest: number of training pairs for each failure.
        encode: largest number of training sources that are compared by the encoder; 0 for none.
        propose: largest number of proposals.

    Raises:
        ConfigError: no translator, or no run.
        DataError: no failure, or a run whose training text is gone.
    """
    if subject.run is None or subject.kind != "translator":
        raise ConfigError("failures: are traced in the training text of a translator's run")
    if not failures:
        raise DataError("failures: none are given")
    corpus = ParallelCorpus.open(subject.run / "data" / "train")
    tidy = [normalise_pair(pair) for pair in failures]
    ids = [subject.encode_source(pair.source) for pair in tidy]
    alike = nearest_by_ngrams(corpus.source, ids, nearest)
    nothing: list[list[Neighbour]] = [[] for _ in ids]
    meant = (
        nearest_by_encoder(subject, corpus.source, ids, nearest, most=encode, progress=progress) if encode else nothing
    )
    text = _TrainingText(subject, corpus)
    counts, trained = text.look_for(tidy)
    found = [
        TracedFailure(
            pair.source,
            pair.target,
            text.pairs(alike[i]),
            text.pairs(meant[i]),
            {word: counts[0][word] for word in dict.fromkeys(words_of_text(pair.source)) if counts[0][word] < RARE},
            {word: counts[1][word] for word in dict.fromkeys(words_of_text(pair.target)) if counts[1][word] < RARE},
            letters(pair.source) in trained,
        )
        for i, pair in enumerate(tidy)
    ]
    missing = Counter(word for failure in found for word in failure.rare_source)
    return FailureReport(
        len(corpus),
        tuple(found),
        dict(missing.most_common()),
        tuple(proposals(pool, missing, [*tidy, *held_out], propose)),
        tuple(pair for pair, failure in zip(tidy, found, strict=True) if not failure.trained),
    )


def words_of_text(text: str) -> list[str]:
    """Return the words of a text in one case, without the punctuation around them."""
    return [word.casefold() for word in _JOINED_WORDS.findall(text)]


_JOINED_WORDS = regex.compile(rf"{LETTER}+(?:['\u2019.-]{LETTER}+)*")


class _TrainingText:
    """The training text of a run, spelt out again from its ids."""

    def __init__(self, subject: Subject, corpus: ParallelCorpus):
        assert subject.source_tokenizer is not None and subject.tokenizer is not None
        self.corpus, self.tokenizers = corpus, (subject.source_tokenizer, subject.tokenizer)

    def pairs(self, found: Sequence[Neighbour]) -> tuple[NearPair, ...]:
        return tuple(
            NearPair(one.row, one.nearness, *(t.decode(ids) for t, ids in zip(self.tokenizers, sides, strict=True)))
            for one in found
            for sides in [self.corpus[one.row]]
        )

    def _texts(self, side: int) -> Iterator[str]:
        column = (self.corpus.source, self.corpus.target)[side]
        for start in range(0, len(column), CHUNK):
            rows = (column[i] for i in range(start, min(start + CHUNK, len(column))))
            yield from self.tokenizers[side].decode_batch(rows)

    def look_for(self, failures: Sequence[Sourced]) -> tuple[tuple[Counter[str], Counter[str]], set[str]]:
        """Return in how many pairs each word of the failures occurs, by side, and which of their sources occur."""
        wanted = [
            {word for pair in failures for word in words_of_text((pair.source, pair.target)[side])} for side in (0, 1)
        ]
        counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        sources, trained = {letters(pair.source) for pair in failures}, set()
        for side in (0, 1):
            for text in self._texts(side):
                counts[side].update(wanted[side].intersection(words_of_text(text)))
                if side == 0 and (spelt := letters(text)) in sources:
                    trained.add(spelt)
        return counts, trained


# ---- proposals ----------------------------------------------------------------------------------------


def proposals(
    pool: Sequence[Sourced], missing: Counter[str], held_out: Sequence[Sourced], most: int
) -> Iterator[Sourced]:
    """Yield the pairs of a pool that show the most missing words, each word at most ``COVERED`` times.

    A word weighs as many failures as have it. Pairs that are like a held-out one are left out, because a test set must
    not enter training.
    """
    held = Likeness(held_out, 0.8)
    left = {word: COVERED for word in missing}
    having = [(pair, missing.keys() & set(words_of_text(pair.source))) for pair in pool]
    waiting = [(pair, mine) for pair, mine in having if mine]
    for _ in range(most):
        scored = [
            (sum(missing[word] for word in mine if left[word]), -len(pair.source), i)
            for i, (pair, mine) in enumerate(waiting)
        ]
        worth, _, i = max(scored, default=(0, 0, 0))
        if not worth:
            return
        pair, mine = waiting.pop(i)
        if held.reason(pair) is None:
            for word in mine:
                left[word] = max(0, left[word] - 1)
            yield pair


# ---- hard set -----------------------------------------------------------------------------------------


def grow_hard_set(path: Path, pairs: Sequence[Sourced]) -> tuple[int, int]:
    """Add pairs to a hard set; return how many are new, and how many it has now.

    What it has stays as it is, in its order; a pair whose source and target it has is not added again.

    Raises:
        DataError: a file that is no hard set; it is left as it is.
        OutputError: it cannot be written.
    """
    there = read_held_out(path) if path.exists() else []
    known = {(pair.source, pair.target) for pair in there}
    new = []
    for pair in pairs:
        if (pair.source, pair.target) not in known:
            known.add((pair.source, pair.target))
            new.append(pair)
    if new:
        before = path.read_bytes() if path.exists() else b""
        ended = before + (b"\n" if before and not before.endswith(b"\n") else b"")
        durable.replace(path, ended + "".join(map(held_out_line, new)).encode())
    return len(new), len(there) + len(new)
