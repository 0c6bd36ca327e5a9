"""Cleaning: each pair is normalised, then the first rule that objects to it removes it and is counted.

The rules are an ordered table of (name, predicate). Nothing is kept in memory but a hash of 8 bytes for each distinct
pair, the counts, and a few examples.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Annotated, Literal

from pydantic import Field

from dragoman.config import config
from dragoman.text.lines import Pair

EXAMPLES = 3
"""Pairs that the report shows for each rule."""


@config
class Cleaning:
    max_characters: Annotated[int, Field(ge=1)] | None = 1000
    """Longest side allowed; None for any length."""
    max_words: Annotated[int, Field(ge=1)] | None = 200
    """The same, in words between spaces."""
    max_ratio: Annotated[float, Field(ge=1)] | None = 4.0
    """Longer side over shorter, in characters, 10 added to both so that short lines may differ more; None for any."""
    copies: Literal["drop", "drop_single_words", "keep"] = "drop"
    """What to do with pairs whose two sides are the same but for case."""
    duplicates: Literal["drop", "keep"] = "drop"
    """What to do with a pair that came before."""
    markup: Literal["drop", "keep"] = "keep"
    """What to do with pairs that hold a placeholder such as {name} or %s, a link, or markup such as <b> or [a](b)."""


@dataclass
class CleanReport:
    """What cleaning did: filled while ``clean`` runs, complete when it ends."""

    read: int = 0
    kept: int = 0
    normalised: int = 0
    """Pairs that normalisation changed, removed or not."""
    removed: dict[str, int] = field(default_factory=dict)
    """Rule -> pairs it removed, for every rule in force, in the order they are asked."""
    examples: dict[str, list[Pair]] = field(default_factory=dict)
    """Rule -> the first pairs it removed."""

    def __str__(self) -> str:
        """One line; names the rules that removed something, the harshest first."""
        worst = sorted(((n, rule) for rule, n in self.removed.items() if n), key=lambda row: -row[0])
        by_rule = ", ".join(f"{rule} {n:,}" for n, rule in worst)
        return f"{self.kept:,} of {self.read:,} pairs kept" + (f"; removed: {by_rule}" if by_rule else "")


def clean(pairs: Iterable[Pair], cfg: Cleaning, report: CleanReport | None = None) -> Iterator[Pair]:
    """The pairs that no rule objects to, normalised, in their order; ``report`` is filled as they go by."""
    report = CleanReport() if report is None else report
    rules = _rules(cfg)
    for name, _ in rules:
        report.removed[name], report.examples[name] = 0, []
    for pair in pairs:
        report.read += 1
        tidy = Pair(normalise(pair.source), normalise(pair.target))
        report.normalised += tidy != pair
        if name := next((name for name, objects in rules if objects(tidy)), None):
            report.removed[name] += 1
            if len(report.examples[name]) < EXAMPLES:
                report.examples[name].append(tidy)
        else:
            report.kept += 1
            yield tidy


# ---- normalisation --------------------------------------------------------------------------------


def normalise(text: str) -> str:
    """Unicode NFC; runs of white space and control characters (U+2028 too) become one space, none at the ends."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()  # most lines of most files, at a tenth of the cost
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text).replace("\ufeff", "")).strip()


_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")

# ---- rules ----------------------------------------------------------------------------------------

Predicate = Callable[[Pair], bool]
"""Whether to remove a pair."""


def _rules(cfg: Cleaning) -> list[tuple[str, Predicate]]:
    characters, words, ratio = cfg.max_characters, cfg.max_words, cfg.max_ratio
    table: list[tuple[str, bool, Predicate]] = [
        # rule          in force                            objects to
        ("empty", True, lambda pair: not (pair.source and pair.target)),
        ("too long", bool(characters or words), lambda pair: any(_overlong(side, characters, words) for side in pair)),
        ("length ratio", ratio is not None, lambda pair: _ratio(pair) > (ratio or 0)),
        ("copy", cfg.copies == "drop", _copy),
        ("one-word copy", cfg.copies == "drop_single_words", lambda pair: " " not in pair.source and _copy(pair)),
        ("placeholder", cfg.markup == "drop", _holds(_PLACEHOLDER)),
        ("link", cfg.markup == "drop", _holds(_LINK)),
        ("markup", cfg.markup == "drop", _holds(_MARKUP)),
        ("duplicate", cfg.duplicates == "drop", _Seen()),  # last: only what would be kept is remembered
    ]
    return [(name, objects) for name, in_force, objects in table if in_force]


def _overlong(text: str, characters: int | None, words: int | None) -> bool:
    if characters and len(text) > characters:
        return True
    return bool(words) and len(text) > words and text.count(" ") >= words  # the first test is cheap and mostly enough


def _ratio(pair: Pair) -> float:
    shorter, longer = sorted((len(pair.source) + 10, len(pair.target) + 10))
    return longer / shorter


def _copy(pair: Pair) -> bool:
    return pair.source == pair.target or pair.source.casefold() == pair.target.casefold()


def _holds(pattern: re.Pattern[str]) -> Predicate:
    return lambda pair: bool(pattern.search(pair.source) or pattern.search(pair.target))


_PLACEHOLDER = re.compile(
    r"""
      \{[^{}]*\}                                            # {name}, {0}, {{ template }}, inside of ICU plurals
    | %(?:\([^)]*\)|\d+\$)?[-+0#]*\d*(?:\.\d+)?[sdiufxgc@]\b   # %s, %d, %1$s, %(name)s, %.2f
    | \$\{?[A-Za-z_]\w*\}?\$?                               # $name, ${name}, $NAME$
    | \[%[^\]]*%\]                                          # [%key:common::...%]
    """,
    re.VERBOSE,
)
_LINK = re.compile(r"\b(?:https?|ftp|mailto):\S|\bwww\.\w|\b\w[\w.+-]*@\w+\.\w", re.IGNORECASE)
_MARKUP = re.compile(
    r"""
      </?[A-Za-z][^<>]*>                                    # <b>, </a>, <br />
    | &(?:[A-Za-z]+|\#\d+|\#x[0-9A-Fa-f]+);                 # &nbsp;
    | \[[^\]]*\]\([^)]*\)                                   # [text](link)
    | \*\*|__|``?                                           # **bold**, __bold__, `code`
    """,
    re.VERBOSE,
)


class _Seen:
    """Whether the pair came before. Hashes have 8 bytes: with a hundred million pairs, 1 run in 3,700 errs, once."""

    def __init__(self) -> None:
        self.hashes: set[int] = set()

    def __call__(self, pair: Pair) -> bool:
        digest = blake2b(f"{pair.source}\0{pair.target}".encode(), digest_size=8).digest()
        before = len(self.hashes)
        self.hashes.add(int.from_bytes(digest, "little"))
        return len(self.hashes) == before
