"""Holding out test and validation pairs, and keeping everything similar to them out of training.

Two texts are alike when their letters are the same (case, digits, punctuation and spaces do not count), or nearly: when
the sets of their ``GRAM``-letter substrings have a Jaccard similarity of at least ``near``. The search is exact, by
prefix filtering (Chaudhuri et al. 2006, Bayardo et al. 2007): similar sets, both sorted rarest first, already share a
member in their short prefixes. So only rare substrings are looked up, and nothing similar is missed.
"""

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from dragoman.config import config
from dragoman.errors import DataError
from dragoman.text.lines import TwoSided

GRAM = 4
"""Length in letters of the substrings that near duplicates are found by."""


@config
class HoldOut:
    """Sizes of the held-out sets, and the similarity that keeps pairs out of training."""

    test: Annotated[int, Field(ge=0)] = 1000
    """Number of pairs held out for the final figures."""
    valid: Annotated[int, Field(ge=0)] = 500
    """Number of pairs held out to choose checkpoints by."""
    hard: Annotated[int, Field(ge=0)] = 0
    """Number of pairs held out as a test set of their own: the hardest, longest and with the rarest words (see
    ``Hardness``)."""
    near: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Similarity from which a text counts as a near duplicate, 0 to 1; None for exact duplicates only."""
    seed: int = 1
    """Seed of the choice: another one holds out other pairs."""


P = TypeVar("P", bound=TwoSided)


@dataclass(frozen=True)
class PairSplit(Generic[P]):
    """Training, validation, test and hard sets."""

    train: list[P]
    valid: list[P]
    test: list[P]
    removed: dict[str, int]
    """Number of pairs kept out of training by reason: "same source", "near source", "same target", "near target"."""
    hard: list[P] = field(default_factory=list)
    """Hard test set, the hardest first."""

    @property
    def held_out(self) -> dict[str, list[P]]:
        """Sets that are kept out of training, by the name they are stored under."""
        return {"valid": self.valid, "test": self.test, "hard": self.hard}


def hold_out(pairs: Sequence[P], cfg: HoldOut, may: Callable[[P], bool] = lambda pair: True) -> PairSplit[P]:
    """Split ``pairs``: no source or target of training is like a held-out one, none of validation like one of test.
    Only pairs that ``may`` accepts are held out.

    Which pairs are held out depends on their text and the seed alone: those whose source has the lowest hash. So the
    order of the pairs does not change the test set, and pairs that are added later change little of it. The hard set is
    taken from the rest.

    Raises:
        DataError: too few pairs to leave any for training.
    """
    candidates = _candidates(filter(may, pairs), cfg.seed)
    test = candidates[: cfg.test]
    tested = Likeness(test, cfg.near)
    fresh = (pair for pair in candidates[cfg.test :] if tested.reason(pair) is None)
    valid = [pair for pair, _ in zip(fresh, range(cfg.valid), strict=False)]
    hard = _hardest(candidates, Likeness([*test, *valid], cfg.near), cfg.hard) if cfg.hard else []
    held = Likeness([*test, *valid, *hard], cfg.near)
    removed = dict.fromkeys(REASONS, 0)
    train = []
    for pair in pairs:
        if why := held.reason(pair):
            removed[why] += 1
        else:
            train.append(pair)
    if not train or (len(test), len(valid), len(hard)) < (cfg.test, cfg.valid, cfg.hard):
        more = f", {cfg.hard:,} as hard ones" if cfg.hard else ""
        raise DataError(
            f"{len(pairs):,} pairs with {len(candidates):,} different sources are too few to hold out {cfg.test:,} for "
            f"test{more} and {cfg.valid:,} for validation and train on the rest: hold out fewer (data.hold_out), or "
            "give more"
        )
    removed["same source"] -= len(test) + len(valid) + len(hard)  # these are the held-out pairs themselves
    return PairSplit(train, valid, test, removed, hard)


def _candidates(pairs: Iterable[P], seed: int) -> list[P]:
    """Return one pair for each different source, in the order of their hashes."""
    first: dict[str, tuple[bytes, P]] = {}
    for pair in pairs:
        key = letters(pair.source)
        mine = (_hash(seed, pair.source, pair.target), pair)
        if key not in first or mine < first[key]:
            first[key] = mine
    return [first[key][1] for key in sorted(first, key=lambda key: _hash(seed, key))]


def _hardest(candidates: Sequence[P], held: "Likeness", count: int) -> list[P]:
    rarity = Hardness(pair.source for pair in candidates)
    hardest_first = sorted(
        candidates, key=lambda pair: -rarity.score(pair.source)
    )  # the sort is stable, so ties stay in the order of hashes
    fresh = (pair for pair in hardest_first if held.reason(pair) is None)
    return [pair for pair, _ in zip(fresh, range(count), strict=False)]


class Hardness:
    """Sentence rarity: minus the sum of the log frequencies of a text's words in ``texts``, ignoring case (Platanios et
    al., arXiv:1903.09848, equation 3, on words)."""

    def __init__(self, texts: Iterable[str]):
        self.counts = Counter(word for text in texts for word in text.casefold().split())
        self.total = max(self.counts.total(), 1)

    def score(self, text: str) -> float:
        """Return the rarity of a text in nats."""
        return sum(math.log(self.total / max(self.counts[word], 1)) for word in text.casefold().split())


def _hash(seed: int, *texts: str) -> bytes:
    return blake2b("\0".join(texts).encode(), digest_size=16, key=str(seed).encode()).digest()


# ---- overlap of sets that were split elsewhere -----------------------------------------------------


@dataclass
class Overlap:
    """Overlap of training pairs with a test set."""

    trained: int = 0
    """Number of training pairs compared."""
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    """Number of training pairs like one of the test set, by reason."""
    examples: dict[str, list[TwoSided]] = field(default_factory=lambda: {why: [] for why in REASONS})
    """First such training pairs, by reason."""
    hit: int = 0
    """Number of pairs of the test set that a training pair is like."""


def overlap(train: Iterable[TwoSided], test: Sequence[TwoSided], near: float | None = 0.8) -> Overlap:
    """Count the pairs of ``train`` that are like one of ``test``, and those of ``test`` that they are like."""
    report = Overlap()
    for _ in without_overlap(train, test, near, report):
        pass
    return report


def without_overlap(
    train: Iterable[P], test: Sequence[TwoSided], near: float | None = 0.8, report: Overlap | None = None
) -> Iterator[P]:
    """Yield the pairs of ``train`` that are like none of ``test``, and fill ``report``."""
    report = Overlap() if report is None else report
    tested, hit = Likeness(test, near), set[int]()
    for pair in train:
        report.trained += 1
        if why := tested.reason(pair):
            hit |= tested.alike(pair)
            report.hit = len(hit)
            report.seen[why] += 1
            if len(report.examples[why]) < 3:
                report.examples[why].append(pair)
        else:
            yield pair


# ---- likeness -------------------------------------------------------------------------------------

REASONS: tuple[str, ...] = ("same source", "near source", "same target", "near target")


class Likeness:
    """Similarity to a held set: compares sources with the held sources and targets with the held targets."""

    def __init__(self, held: Sequence[TwoSided], near: float | None):
        self.sources = _Index([pair.source for pair in held], near)
        self.targets = _Index([pair.target for pair in held], near)

    def reason(self, pair: TwoSided) -> str | None:
        """Return one of ``REASONS``, or None where the pair is like none."""
        if kind := self.sources.match(pair.source):
            return f"{kind} source"
        if kind := self.targets.match(pair.target):
            return f"{kind} target"
        return None

    def alike(self, pair: TwoSided) -> set[int]:
        """Return the rows of all held pairs that the pair is like."""
        return self.sources.alike(pair.source) | self.targets.alike(pair.target)


class _Index:
    """Index that finds a similar held text without comparing with each."""

    def __init__(self, texts: Iterable[str], near: float | None):
        self.near = near
        self.exact: dict[str, list[int]] = defaultdict(list)  # letters -> rows of the texts that have them
        for row, text in enumerate(texts):
            self.exact[letters(text)].append(row)
        self.grams = [grams(key) for key in self.exact] if near else []
        self.count = Counter(gram for held in self.grams for gram in held)
        self.holders: dict[str, list[int]] = defaultdict(list)  # substring -> texts with it in their prefix
        for i, held in enumerate(self.grams):
            for gram in self._beginning(held, len(held)):
                self.holders[gram].append(i)

    def match(self, text: str) -> str | None:
        """Return "same" or "near" if a held text is like ``text``; None if none is."""
        key = letters(text)
        if key in self.exact:
            return "same"
        return "near" if any(True for _ in self._near(key)) else None

    def alike(self, text: str) -> set[int]:
        """Return the rows of all held texts that are like ``text``."""
        key, rows = letters(text), list(self.exact.values())
        return {*self.exact.get(key, ()), *(row for i in self._near(key) for row in rows[i])}

    def _near(self, key: str) -> Iterator[int]:
        """Yield the numbers of the different held texts that are near."""
        if self.near is None:
            return
        mine = grams(key)
        known = [gram for gram in mine if gram in self.count]
        candidates = {i for gram in self._beginning(known, len(mine)) for i in self.holders.get(gram, ())}
        yield from (i for i in candidates if jaccard(mine, self.grams[i]) >= self.near)

    def _beginning(self, known: Iterable[str], size: int) -> list[str]:
        """Return the prefix that a similar set must share, for a set of ``size`` members of which ``known`` occur in
        the index.

        If one set has n members and the similarity is at least s, the sets share at least s n. So of the n, the first n
        - ceil(s n) + 1 hold a shared one, in any order that both follow: here unknown first, then rarest first.
        """
        assert self.near is not None
        known = list(known)
        length = size - math.ceil(self.near * size - 1e-9) + 1 - (size - len(known))
        return sorted(known, key=lambda gram: (self.count[gram], gram))[:length] if length > 0 else []


def letters(text: str) -> str:
    """Return the letters of ``text`` (with their marks) in one case and nothing else; the whole text where it has
    none."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return folded.translate(_LETTERS) or folded


class _Letters(dict[int, int | None]):
    """Lazy table for ``str.translate``: keeps letters and the marks on them, deletes the rest."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code if unicodedata.category(chr(code))[0] in "LM" else None
        return self[code]


_LETTERS = _Letters()


def grams(key: str) -> frozenset[str]:
    """Return every substring of ``GRAM`` letters; the whole key where it is shorter."""
    return frozenset(key[i : i + GRAM] for i in range(max(1, len(key) - GRAM + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the size of the intersection over that of the union."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)
