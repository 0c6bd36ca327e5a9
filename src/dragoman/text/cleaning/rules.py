"""Rules of cleaning: a setting, a line in the table, and a predicate for each, all in this file.

A rule is a predicate of a pair. Two of them must know the whole text before they judge any pair (``LearnedRule``): they
are shown every pair first.
"""

import math
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from dragoman.config import config
from dragoman.text.cleaning.languages import is_other_language
from dragoman.text.cleaning.remembered import SeenTexts, SeenTranslations, text_hash
from dragoman.text.cleaning.scripts import Script, script_of
from dragoman.text.lines import Sourced, TwoSided
from dragoman.text.number_matching import unmatched_numbers
from dragoman.text.placeholders import has_placeholder


@config
class Cleaning:
    """Settings of cleaning, one for each rule."""

    max_characters: Annotated[int, Field(ge=1)] | None = 1000
    """Longest side allowed, in characters; None for any length."""
    max_words: Annotated[int, Field(ge=1)] | None = 200
    """Longest side allowed, in words between spaces; None for any length."""
    max_ratio: Annotated[float, Field(ge=1)] | None = 4.0
    """Largest ratio of the longer side to the shorter, in characters, with 10 added to both so that short lines may
    differ more; None for any."""
    max_deviations: Annotated[float, Field(gt=0)] | None = None
    """Largest distance of the logarithm of that ratio, target over source, from its mean in this text, in standard
    deviations, such as 3; None for any. This fits languages whose texts differ in length."""
    copies: Literal["drop", "drop_single_words", "keep"] = "drop"
    """Treatment of pairs whose two sides are the same except for case."""
    duplicates: Literal["drop", "keep"] = "drop"
    """Treatment of a pair that occurred before; where preceding sentences are read too, with the same ones."""
    conflicts: Literal["drop", "drop_rarer", "keep"] = "keep"
    """Treatment of pairs whose source has other targets too: drop them all, or keep the source's most frequent target
    (the first of equally frequent ones)."""
    markup: Literal["drop", "keep"] = "keep"
    """Treatment of pairs that hold a placeholder such as {name} or %s, a link, or markup such as <b> or [a](b)."""
    numbers: Literal["drop", "keep"] = "keep"
    """Treatment of pairs whose sides hold different numbers; 1,000.5 and 1.000,5 are the same, and so
    are 10:30 and 10.30."""
    source_scripts: tuple[Script, ...] = ()
    """Scripts such as [latin] that half of a source's letters must be written in; empty for any."""
    target_scripts: tuple[Script, ...] = ()
    """Scripts such as [hiragana, katakana, cjk] that half of a target's letters must be written in; empty for any."""
    source_language: str | None = None
    """Language code such as en: sources for which another language is a hundred times likelier are removed; None for
    any. Needs the extra ``language``."""
    target_language: str | None = None
    """Language code, as for sources: targets for which another language is a hundred times likelier are removed."""


Predicate = Callable[[TwoSided], bool]
"""Function that returns True for a pair to remove."""


class CleaningRule(NamedTuple):
    """Name of a rule in reports, and its predicate."""

    name: str
    rejects: Predicate


class LearnedRule(ABC):
    """Predicate that must be shown all pairs before it judges one."""

    @abstractmethod
    def learn(self, pair: TwoSided) -> None: ...

    @abstractmethod
    def __call__(self, pair: TwoSided) -> bool: ...


def stateless_rules(cfg: Cleaning) -> list[CleaningRule]:
    """Return the rules in force that need only the pair, in the order they are applied."""
    characters, words, ratio, markup = cfg.max_characters, cfg.max_words, cfg.max_ratio, cfg.markup == "drop"
    return _in_force(
        # rule, in force, predicate
        ("empty", True, lambda: _empty),
        ("too long", bool(characters or words), lambda: _overlong(characters, words)),
        ("length ratio", ratio is not None, lambda: lambda pair: _ratio(pair) > (ratio or 0)),
        ("copy", cfg.copies == "drop", lambda: is_copy),
        ("one-word copy", cfg.copies == "drop_single_words", lambda: _one_word_copy),
        ("link", markup, lambda: _either(_LINK.search)),
        ("markup", markup, lambda: _either(_MARKUP.search)),
        ("placeholder", markup, lambda: _either(has_placeholder)),
        ("number mismatch", cfg.numbers == "drop", lambda: _other_numbers),
        ("script", bool(cfg.source_scripts or cfg.target_scripts), lambda: _foreign(cfg)),
        ("language", bool(cfg.source_language or cfg.target_language), lambda: _other_language(cfg)),
    )


def stateful_rules(cfg: Cleaning, memory: sqlite3.Connection) -> list[CleaningRule]:
    """Return the rules in force that need the rest of the text; they are applied after the others, to the pairs that
    remain."""
    return _in_force(
        ("unusual length ratio", cfg.max_deviations is not None, lambda: FittedRatio(cfg.max_deviations or 0)),
        ("conflict", cfg.conflicts != "keep", lambda: Conflicts(memory, cfg.conflicts == "drop_rarer")),
        (
            "duplicate",
            cfg.duplicates == "drop",
            lambda: _repeated(memory),
        ),  # last, so that removed pairs do not count as seen
    )


def _in_force(*table: tuple[str, bool, Callable[[], Predicate]]) -> list[CleaningRule]:
    return [CleaningRule(name, make()) for name, in_force, make in table if in_force]


# ---- lengths --------------------------------------------------------------------------------------


def _empty(pair: TwoSided) -> bool:
    return not (pair.source and pair.target)


def _overlong(characters: int | None, words: int | None) -> Predicate:
    def too_long(text: str) -> bool:
        if characters and len(text) > characters:
            return True
        return (
            bool(words) and len(text) > words and text.count(" ") >= words
        )  # the first test is cheap and mostly decides

    return lambda pair: too_long(pair.source) or too_long(pair.target)


def _ratio(pair: TwoSided) -> float:
    shorter, longer = sorted((len(pair.source) + 10, len(pair.target) + 10))
    return longer / shorter


def log_ratio(pair: TwoSided) -> float:
    """Return ln((target + 10) / (source + 10)), in characters."""
    return math.log((len(pair.target) + 10) / (len(pair.source) + 10))


class FittedRatio(LearnedRule):
    """Rejects pairs whose ``log_ratio`` is more than ``most`` standard deviations from the mean of all."""

    def __init__(self, most: float):
        self.most = most
        self.pairs, self.mean, self.squares = 0, 0.0, 0.0

    def learn(self, pair: TwoSided) -> None:
        self.pairs += 1  # Welford 1962: a running mean, and the sum of squares about it
        value = log_ratio(pair)
        difference = value - self.mean
        self.mean += difference / self.pairs
        self.squares += difference * (value - self.mean)

    def __call__(self, pair: TwoSided) -> bool:
        deviation = math.sqrt(self.squares / self.pairs)
        return (
            abs(log_ratio(pair) - self.mean) > self.most * deviation + 1e-9
        )  # so that rounding removes none of equal ratios


# ---- copies, duplicates and conflicts ------------------------------------------------------------


def is_copy(pair: TwoSided) -> bool:
    """Return True if both sides are the same except for case."""
    return pair.source == pair.target or pair.source.casefold() == pair.target.casefold()


def _one_word_copy(pair: TwoSided) -> bool:
    return " " not in pair.source and is_copy(pair)


def _repeated(memory: sqlite3.Connection) -> Predicate:
    seen = SeenTexts(memory)

    def came_before(pair: TwoSided) -> bool:
        context = pair.context if isinstance(pair, Sourced) else ()
        return seen.seen_before(text_hash(*context, pair.source, pair.target))

    return came_before


SOURCES = 1024
"""Number of sources whose targets are cached: one with thousands of targets is sorted once, not once for each pair."""


class Conflicts(LearnedRule):
    """Rejects pairs whose source has several targets: all of them, or only the rarer ones."""

    def __init__(self, memory: sqlite3.Connection, only_rarer: bool):
        self.translations, self.only_rarer = SeenTranslations(memory), only_rarer
        self.targets = lru_cache(SOURCES)(self.translations.targets_of)  # valid since it is called only after learning

    def learn(self, pair: TwoSided) -> None:
        self.translations.add(pair)

    def __call__(self, pair: TwoSided) -> bool:
        targets = self.targets(pair.source)
        return text_hash(pair.target) != targets[0] if self.only_rarer else len(targets) > 1


# ---- numbers, scripts and languages --------------------------------------------------------------------------


def _other_numbers(pair: TwoSided) -> bool:
    return any(unmatched_numbers(pair.source, pair.target))


def _foreign(cfg: Cleaning) -> Predicate:
    sources, targets = frozenset(cfg.source_scripts), frozenset(cfg.target_scripts)
    return lambda pair: _mostly_not(sources, pair.source) or _mostly_not(targets, pair.target)


def _mostly_not(allowed: Iterable[str], text: str) -> bool:
    if not allowed:
        return False
    letters = [script for script in map(script_of, text) if script]
    return 2 * sum(script in allowed for script in letters) < len(letters)


def _other_language(cfg: Cleaning) -> Predicate:
    def other(language: str | None) -> Callable[[str], bool]:
        return is_other_language(language) if language else lambda text: False

    source, target = other(cfg.source_language), other(cfg.target_language)
    return lambda pair: source(pair.source) or target(pair.target)


# ---- markup of interface strings ------------------------------------------------------------------


def _either(holds: Callable[[str], object]) -> Predicate:
    return lambda pair: bool(holds(pair.source) or holds(pair.target))


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
