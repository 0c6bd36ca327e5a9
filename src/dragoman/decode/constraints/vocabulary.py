"""The target vocabulary by what its tokens spell: which tokens may come next where the next bytes are given.

A text has many tokenisations, and a constraint on what is said must hold for all of them; so constraints are about
bytes.

V vocabulary, L bytes of the longest token.
"""

from bisect import bisect_left
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt8

from dragoman.errors import ConfigError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.tokens.tokenizer import EOS, Tokenizer


class SpelledVocabulary:
    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    @property
    def spellings(self) -> list[bytes]:
        """Raises ConfigError for a tokenizer made elsewhere that is not spelt in bytes, but not before it is needed."""
        return self.tokenizer.spellings

    def spelt(self, text: str) -> bytes:
        """The bytes of the tokens of ``text``, normalised; before them a space where the tokenizer puts one. White
        space at the end of ``text`` is one space.

        Raises:
            ConfigError: the vocabulary cannot spell it.
        """
        tidy = normalise(text)
        ids = self.tokenizer.encode(tidy)
        spelt = b"".join(map(self.tokenizer.spelling, ids))
        if spelt.removeprefix(b" ") != tidy.encode().removeprefix(b" "):
            raise ConfigError(f"{text!r}: the target vocabulary cannot express it: leave it out, or spell it otherwise")
        return spelt + b" " if text[-1:].isspace() else spelt

    def spelling(self, token: int) -> bytes:
        return self.spellings[token]

    def __contains__(self, spelt: bytes) -> bool:
        """Whether some token spells this."""
        return spelt in self._by_bytes

    @cached_property
    def matrix(self) -> tuple[UInt8[np.ndarray, "V L"], Int[np.ndarray, " V"], Int[np.ndarray, " V"]]:
        """The bytes of each token, how many they are, and its id; the longest tokens first. Special ones have none."""
        lengths = np.array([len(spelt) if token > EOS else 0 for token, spelt in enumerate(self.spellings)])
        order = np.argsort(-lengths, kind="stable")
        rows = np.zeros((len(lengths), lengths.max()), dtype=np.uint8)
        for i, token in enumerate(order.tolist()):
            rows[i, : lengths[token]] = np.frombuffer(self.spellings[token], dtype=np.uint8)[: lengths[token]]
        return rows, lengths[order], order

    def towards(self, rest: bytes) -> list[int]:
        """The tokens that spell the beginning of ``rest``, or all of it and more."""
        within = [token for end in range(1, len(rest)) for token in self._by_bytes.get(rest[:end], ())]
        first = bisect_left(self._sorted, (rest, 0))
        beyond = []
        for spelt, token in self._sorted[first:]:
            if not spelt.startswith(rest):
                break
            beyond.append(token)
        return within + beyond

    @cached_property
    def _sorted(self) -> list[tuple[bytes, int]]:
        return sorted((spelt, token) for token, spelt in enumerate(self.spellings) if spelt and token > EOS)

    @cached_property
    def _by_bytes(self) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        for spelt, token in self._sorted:
            found.setdefault(spelt, []).append(token)
        return found
