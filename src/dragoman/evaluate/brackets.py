"""F1 of labelled brackets between trees, as constituency parsers are scored (PARSEVAL; Black et al. 1991).

A tree is written on one line: ``(S (NP the dog ) (VP sleeps ) )``, also without spaces around brackets. A bracket
counts as right where one of the same label spans the same words. Brackets that are not closed end with the text, and
those that were never opened are not counted, so every output has a score.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dragoman.evaluate.metrics import Metric

_TOKEN = re.compile(r"\([^\s()]*|\)|[^\s()]+")

Bracket = tuple[str, int, int]
"""Label, number of the first word, and of the one after the last."""


def read_brackets(tree: str) -> Counter[Bracket]:
    """Return the labelled spans of a tree with their number of occurrences."""
    open_brackets: list[tuple[str, int]] = []
    found, words = Counter[Bracket](), 0
    for token in _TOKEN.findall(tree):
        if token.startswith("("):
            open_brackets.append((token[1:], words))
        elif token != ")":
            words += 1
        elif open_brackets:
            label, start = open_brackets.pop()
            found[label, start, words] += 1
    found.update((label, start, words) for label, start in open_brackets)
    return found


class BracketF1(Metric):
    """Harmonic mean of precision and recall of labelled brackets, over the whole test set, in percent."""

    name, signature = "bracket F1", "labelled|micro|all brackets"

    def counts(self, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Return for each tree (N, 3) the brackets that are right, those of the output, and those of the reference."""
        rows = []
        for output, reference in zip(outputs, references, strict=True):
            given, wanted = read_brackets(output), read_brackets(reference)
            rows.append([(given & wanted).total(), given.total(), wanted.total()])
        return np.array(rows, dtype=np.float64).reshape(-1, 3)

    def value(self, counts: np.ndarray) -> float:
        right, given, wanted = counts
        return float(200 * right / max(given + wanted, 1.0))
