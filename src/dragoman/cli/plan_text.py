"""Size of the text that ``dragoman plan --data`` names, before there is a tokenizer."""

import os
from dataclasses import dataclass
from pathlib import Path

from dragoman.errors import ConfigError, DataError
from dragoman.text.amount import count_tokens, count_words
from dragoman.text.compressed import extension, open_bytes

VOCAB = 8000
"""Entries of the vocabulary that tokens are estimated for."""
SAMPLE = 2**22
"""Bytes of running text whose words are counted; the rest is taken to be like them."""


@dataclass(frozen=True)
class PlannedText:
    """Estimated size of a training text."""

    examples: int
    """Pairs; 1 for running text."""
    tokens: int
    """Tokens of the larger side, without padding."""
    length: int | None
    """Tokens of the larger side of a pair, on average; None for running text, which fills rows."""

    @property
    def summary(self) -> str:
        of = "text" if self.length is None else f"{self.examples:,} pairs of {self.length:,} tokens on average"
        return f"{of}: about {self.tokens:,} tokens (of a vocabulary of {VOCAB:,})"


def measure_text(name: str, *, pairs: bool) -> PlannedText:
    """Return the size of the text called ``name``: pairs of sentences, or running text.

    Raises:
        DataError: it cannot be read, or there is nothing in it.
    """
    if pairs:
        from dragoman.cli.sources import read_named_pairs

        words = [
            max(count_words(pair.source), count_words(pair.target)) for pair in read_named_pairs(name, report=False)
        ]
        if not words:
            raise DataError(f"{name}: no pairs in it")
        tokens = round(count_tokens(sum(words), VOCAB, len(words)))
        return PlannedText(len(words), tokens, max(1, round(tokens / len(words))))
    path = Path(name)
    if path.is_dir():
        raise ConfigError(f"--data: {name}: a folder: name a text file")
    if not path.is_file():
        raise ConfigError(f"--data: {name}: no such file")
    if not (words := _words_in(path)):
        raise DataError(f"{name}: it is empty")
    return PlannedText(1, round(count_tokens(words, VOCAB)), None)


def _words_in(path: Path) -> float:
    """Return about how many words a file of running text has, plain or compressed."""
    with open_bytes(path) as file:
        sample = file.read(SAMPLE)
        if len(sample) < SAMPLE:
            size = len(sample)
        elif extension(path) == path.suffix.lower():
            size = os.path.getsize(path)
        else:
            size = len(sample) + sum(map(len, iter(lambda: file.read(SAMPLE), b"")))
    return count_words(sample.decode(errors="ignore")) * size / max(1, len(sample))
