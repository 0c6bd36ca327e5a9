"""Scores of predicted answers: SQuAD's exact match and F1 (evaluate-v2.0.py; Rajpurkar et al., arXiv:1606.05250,
section 6.1; arXiv:1806.03822). Case, punctuation and English articles do not count."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def words(answer: str) -> list[str]:
    """Return the words that are compared."""
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()


def exact(guess: str, right: str) -> float:
    """Return 1 where both answers have the same words in the same order, else 0."""
    return float(words(guess) == words(right))


def f1(guess: str, right: str) -> float:
    """Return the harmonic mean of precision and recall of words; where one answer has no words, 1 if neither has, else
    0."""
    one, other = words(guess), words(right)
    if not one or not other:
        return float(one == other)
    shared = (Counter(one) & Counter(other)).total()
    return 2 * shared / (len(one) + len(other))


def best(measure: Callable[[str, str], float], guess: str, right: Sequence[str]) -> float:
    """Return the measure against the most similar right answer. If no right answer has any word, the right one is
    empty."""
    return max(measure(guess, text) for text in [text for text in right if words(text)] or [""])
