"""Matchers: each answers whether a text, or an answer with its confidence, is what a rule looks for."""

import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import regex

from dragoman.decode.readers.classifier import Classifier
from dragoman.errors import ConfigError, DataError, UserError
from dragoman.serve.safety.rules import ClassifierConfig, ConfidenceConfig, Match, PatternConfig, TermsConfig
from dragoman.text.cleaning.scripts import script_of
from dragoman.text.lines import read_lines

WITHOUT_SPACES = frozenset({"cjk", "hiragana", "katakana", "bopomofo", "thai", "lao", "khmer", "myanmar", "tibetan"})
"""Scripts that put no spaces between words."""


class Matcher(ABC):
    """Does a text match?"""

    def __init__(self, failures: Counter[str]):
        self.failures = failures
        """Counts what could not be decided, which counts as a match: a safety page fails closed."""

    @abstractmethod
    def matches(self, text: str, confidence: float | None) -> bool:
        """Return whether a text matches; ``confidence`` is that of an answer, where it has one."""


class TermsMatcher(Matcher):
    """Looks for terms, however they are cased, spaced, composed, or interrupted by invisible characters."""

    def __init__(self, terms: Iterable[str], failures: Counter[str]):
        super().__init__(failures)
        self.pattern = regex.compile("|".join(map(_term_pattern, sorted(terms, key=len, reverse=True))))

    def matches(self, text: str, confidence: float | None) -> bool:
        return self.pattern.search(folded(text)) is not None


def folded(text: str) -> str:
    """Return a text as terms are compared in: in one case, compatibility composed, without invisible characters."""
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())


def _term_pattern(term: str) -> str:
    term = folded(term).strip()
    words = [regex.escape(word) for word in term.split()]
    before, after = _is_open(term), _is_open(term[::-1])
    return ("" if before else r"(?<!\w)") + r"\s+".join(words) + ("" if after else r"(?!\w)")


def _is_open(term: str) -> bool:
    """Return whether a term is found inside of words: where it begins with a sign, or in a script without spaces."""
    if regex.match(r"\w", term) is None:  # marks are of words, too: a term may end in a vowel sign
        return True
    for character in term:
        if (script := script_of(character)) or unicodedata.category(character)[0] not in "LM":
            return script in WITHOUT_SPACES
    return False


class PatternMatcher(Matcher):
    """Searches a regular expression, for a limited time: some take for ever on some texts."""

    def __init__(self, cfg: PatternConfig, where: str, failures: Counter[str]):
        super().__init__(failures)
        self.seconds = cfg.seconds
        try:
            self.pattern = regex.compile(cfg.pattern, regex.IGNORECASE if cfg.ignore_case else 0)
        except regex.error as error:
            raise ConfigError(f"{where}.pattern: not a regular expression: {error}") from None

    def matches(self, text: str, confidence: float | None) -> bool:
        try:
            return self.pattern.search(text, timeout=self.seconds) is not None
        except TimeoutError:
            self.failures["pattern out of time"] += 1
            return True


class ClassifierMatcher(Matcher):
    """Asks a classifier how probable a label is."""

    def __init__(self, cfg: ClassifierConfig, folder: Path, where: str, failures: Counter[str]):
        super().__init__(failures)
        self.label, self.above = cfg.label, cfg.above
        try:
            self.classifier = _classifier(str(folder / cfg.run))
        except UserError as error:
            raise ConfigError(f"{where}.run: {error}") from None
        if cfg.label not in self.classifier.labels:
            known = ", ".join(self.classifier.labels)
            raise ConfigError(f"{where}.label: {cfg.run} has no label {cfg.label!r}; it has {known}")

    def matches(self, text: str, confidence: float | None) -> bool:
        if not text.strip():
            return False
        try:
            return self.classifier.classify([text])[0].probabilities[self.label] > self.above
        except DataError:  # too long for it
            self.failures["classifier refused a text"] += 1
            return True


@lru_cache(maxsize=8)
def _classifier(run: str) -> Classifier:
    return Classifier.load(run)


class ConfidenceMatcher(Matcher):
    """Compares the confidence of an answer; a model without any is never unsure."""

    def __init__(self, cfg: ConfidenceConfig, failures: Counter[str]):
        super().__init__(failures)
        self.below = cfg.below

    def matches(self, text: str, confidence: float | None) -> bool:
        return confidence is not None and confidence < self.below


def build_matcher(match: Match, folder: Path, where: str, failures: Counter[str]) -> Matcher:
    """Build what decides on a rule's match.

    Args:
        folder: of the page, for relative names.
        where: place of the match in the page, for errors.

    Raises:
        ConfigError: a match without content, or one whose file or run cannot be used.
    """
    match match:
        case TermsConfig():
            return TermsMatcher(_terms(match, folder, where), failures)
        case PatternConfig():
            return PatternMatcher(match, where, failures)
        case ClassifierConfig():
            return ClassifierMatcher(match, folder, where, failures)
        case ConfidenceConfig():
            return ConfidenceMatcher(match, failures)


def _terms(match: TermsConfig, folder: Path, where: str) -> list[str]:
    terms = list(match.terms)
    if match.file is not None:
        try:
            terms += [line for line in read_lines(folder / match.file) if line.strip() and not line.startswith("#")]
        except DataError as error:
            raise ConfigError(f"{where}.file: {error}") from None
    if not terms:
        raise ConfigError(f"{where}: no terms: list some under terms, or name a file")
    if empty := [term for term in terms if not folded(term).strip()]:
        raise ConfigError(f"{where}.terms: {empty[0]!r} holds nothing to look for")
    return terms
