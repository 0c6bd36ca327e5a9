"""Target vocabulary by spelling: which tokens may come next where the next bytes are given.

A text has many tokenisations, and a constraint must hold for all of them. So constraints are about bytes.

V vocabulary, L bytes of the longest token.
"""

from bisect import bisect_left
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Int, UInt8

from dragoman.errors import ConfigError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.tokens.tokenizer import EOS, Tokenizer


class SpelledVocabulary:
    """The tokens of a tokenizer with the bytes they spell."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    @classmethod
    @lru_cache(maxsize=16)  # a server needs it again for each request
    def of(cls, tokenizer: Tokenizer) -> "SpelledVocabulary":
        """Return the vocabulary of a tokenizer, the same one each time: what it derives is derived once."""
        return cls(tokenizer)

    @property
    def spellings(self) -> list[bytes]:
        """Bytes of each token; raises ConfigError for a tokenizer that is not spelt in bytes, only when needed."""
        return self.tokenizer.spellings

    def spelt(self, text: str) -> bytes:
        """Return the bytes of the tokens of ``text``, normalised, with the space that the tokenizer puts in front.

        White space at the end of ``text`` becomes one space.

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
        """Return the bytes of a token."""
        return self.spellings[token]

    def __contains__(self, spelt: bytes) -> bool:
        """Return whether some token spells these bytes."""
        return spelt in self._by_bytes

    @cached_property
    def matrix(self) -> tuple[UInt8[np.ndarray, "V L"], Int[np.ndarray, " V"], Int[np.ndarray, " V"]]:
        """Bytes of each token, their number, and its id, the longest tokens first. Special tokens have no bytes."""
        lengths = np.array([len(spelt) if token > EOS else 0 for token, spelt in enumerate(self.spellings)])
        order = np.argsort(-lengths, kind="stable")
        rows = np.zeros((len(lengths), lengths.max()), dtype=np.uint8)
        for i, token in enumerate(order.tolist()):
            rows[i, : lengths[token]] = np.frombuffer(self.spellings[token], dtype=np.uint8)[: lengths[token]]
        return rows, lengths[order], order

    def towards(self, rest: bytes) -> list[int]:
        """Return the tokens that spell a prefix of ``rest``, or all of it and more."""
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
