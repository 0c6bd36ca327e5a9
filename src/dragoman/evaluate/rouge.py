"""ROUGE, the metric of summaries (Lin 2004), as the package ``rouge-score`` computes it.

ROUGE-L is that of the whole text, which published tables call ROUGE-L of a sentence; ``rougeLsum`` reads line ends as
ends of sentences.

The package's own tokens are runs of a to z and digits, which no word of Cyrillic is and which break accented words.
Here they are runs of letters and digits of all scripts. Of English text the scores are the package's.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dragoman.errors import ConfigError
from dragoman.evaluate.metrics import Metric


class Rouge(Metric):
    """Mean F of one kind of ROUGE over the test set, in percent."""

    def __init__(self, kind: str, name: str):
        self.kind, self.name = kind, name
        self.signature = f"rouge-score|{kind}|F|tokens:letters, digits, all scripts|stemmer:ASCII|mean of sentences"

    @cached_property
    def scorer(self) -> Any:
        """Return the package's scorer.

        Raises:
            ConfigError: rouge-score is not installed.
        """
        try:
            from nltk.stem.porter import PorterStemmer  # pyright: ignore[reportMissingImports]
            from rouge_score.rouge_scorer import RougeScorer  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError("metrics: ROUGE needs rouge-score: pip install rouge-score (the extra rouge)") from None
        return RougeScorer([self.kind], tokenizer=WordStems(PorterStemmer().stem))

    def counts(self, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Return the F of each output and 1 (N, 2)."""
        found = [self.scorer.score(r, o)[self.kind].fmeasure for o, r in zip(outputs, references, strict=True)]
        return np.array([[f, 1] for f in found], dtype=np.float64).reshape(-1, 2)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / max(counts[1], 1.0))


class WordStems:
    """Tokenizer of rouge-score: words of all scripts in lower case, and the stems of those in ASCII."""

    def __init__(self, stem: Callable[[str], str]):
        self.stem = stem

    def tokenize(self, text: str) -> list[str]:
        """Return the stems of a text. As in the package, a word of three letters or fewer is its own stem."""
        text = unicodedata.normalize("NFC", text.lower())
        words = "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in text).split()
        return [self.stem(word) if word.isascii() and len(word) > 3 else word for word in words]


ROUGES: dict[str, Metric] = {
    kind: Rouge(kind, name)
    for kind, name in (
        ("rouge1", "ROUGE-1"),
        ("rouge2", "ROUGE-2"),
        ("rougeL", "ROUGE-L"),
        ("rougeLsum", "ROUGE-Lsum"),
    )
}
