"""Size of the text that ``dragoman plan --data`` names, before there is a tokenizer."""

import os
from dataclasses import dataclass
from pathlib import Path

from dragoman.errors import ConfigError, DataError

BYTES_PER_TOKEN = 4.0
"""Bytes of UTF-8 that a token of a byte-pair vocabulary of 8,000 holds in European languages, about."""


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
        return f"{of}: about {self.tokens:,} tokens (at {BYTES_PER_TOKEN:g} bytes each)"


def measure_text(name: str, *, pairs: bool) -> PlannedText:
    """Return the size of the text called ``name``: pairs of sentences, or running text.

    Raises:
        DataError: it cannot be read, or there is nothing in it.
    """
    if pairs:
        from dragoman.cli.sources import read_named_pairs

        sizes = [
            max(len(pair.source.encode()), len(pair.target.encode())) for pair in read_named_pairs(name, report=False)
        ]
        if not sizes:
            raise DataError(f"{name}: no pairs in it")
        tokens = [1 + round(nbytes / BYTES_PER_TOKEN) for nbytes in sizes]
        return PlannedText(len(tokens), sum(tokens), max(1, round(sum(tokens) / len(tokens))))
    path = Path(name)
    if path.is_dir():
        raise ConfigError(f"--data: {name}: a folder: name a text file")
    if not path.is_file():
        raise ConfigError(f"--data: {name}: no such file")
    nbytes = os.path.getsize(path)
    if not nbytes:
        raise DataError(f"{name}: it is empty")
    return PlannedText(1, max(1, round(nbytes / BYTES_PER_TOKEN)), None)
