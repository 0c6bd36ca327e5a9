"""Passages to read before a question: those of a file that share the most, and the rarest, words with it (BM25)."""

from collections.abc import Callable, Sequence

from dragoman.text.formats.documents import BlankLines, read_documents
from dragoman.text.fuzzy import units
from dragoman.text.ngram_index import WordIndex

PASSAGES = 3
"""Passages read before a question, where nothing else is said."""
BETWEEN = "\n\n"
"""Separator between passages, and before the question."""


class Passages:
    """Passages with an index of their words."""

    def __init__(self, texts: Sequence[str], count: int = PASSAGES):
        """
        Args:
            count: most passages read before a question.
        """
        self.texts, self.count = list(texts), count
        self.index = WordIndex([_words(text) for text in texts])

    @classmethod
    def read(cls, path: str, count: int = PASSAGES) -> "Passages":
        """Read a text file with blank lines between passages, or JSON lines with one under ``text`` each.

        Raises:
            DataError: a file that cannot be read, or without text.
        """
        return cls([document.text.strip() for document in read_documents(path, BlankLines(), "text")], count)

    def __len__(self) -> int:
        return len(self.texts)

    def find(self, question: str) -> list[str]:
        """Return the passages that share words with a question, best first, earlier ones first among equals."""
        return [self.texts[row] for row, _ in self.index.best(_words(question), self.count)]

    def context(self, question: str) -> str:
        """Return the passages for a question as one text; the first ones where none shares a word with it."""
        return BETWEEN.join(self.find(question) or self.texts[: self.count])

    def prompt(self, question: str, fits: Callable[[str], bool] = lambda text: True) -> str:
        """Return the question after its passages, the best one first; the last ones are left out until it ``fits``."""
        found = self.find(question)
        while found and not fits(BETWEEN.join([*found, question])):
            found.pop()
        return BETWEEN.join([*found, question])


def _words(text: str) -> list[str]:
    return [unit for unit in units(text) if any(char.isalnum() for char in unit)]
