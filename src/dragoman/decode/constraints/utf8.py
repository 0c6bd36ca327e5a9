"""Valid UTF-8: bytes that cannot continue a UTF-8 sequence are never chosen.

A vocabulary of bytes can spell what is no text, and a decoder then writes U+FFFD. The rule follows each row's bytes
through the automaton of RFC 3629. It forbids tokens with no way through, an end inside a character, and, near the
length limit, a character that the tokens left cannot finish. U+FFFD itself is forbidden too.

R rows, V vocabulary, S states of the automaton.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.decode.constraints.utf8_bytes import bytes_missing, may_follow
from dragoman.decode.search.rule import RowMemory, Rule
from dragoman.decode.search.strategy import Choice
from dragoman.decode.search.task import Progress
from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import EOS, Tokenizer

REPLACEMENT = "\ufffd"
"""Character that a decoder writes for invalid bytes."""
WHOLE = 0
"""State between two characters."""

_STATES = (b"", b"\xc3", b"\xe1", b"\xe0", b"\xed", b"\xf1", b"\xf0", b"\xf4", b"\xef", b"\xef\xbf")
"""Prefixes of a character; one represents all that continue alike."""
_STAND_IN = (b"", b"\xc3", b"\xe1", b"\xf1")
"""Representative of the prefixes that any continuation bytes may follow, by how many are missing."""
_ENOUGH = 8
"""Number of tokens left from which on the length limit is irrelevant; a character takes at most three more."""


def _after(prefix: bytes, byte: int) -> bytes | None:
    """Return the prefix after one more byte, empty where the character is complete; None for an invalid byte."""
    longer = prefix + bytes([byte])
    if not may_follow(prefix, byte) or longer == REPLACEMENT.encode():
        return None
    return longer if longer in _STATES else _STAND_IN[bytes_missing(longer)]


def _tabulated() -> np.ndarray:
    rows = [[_after(prefix, byte) for byte in range(256)] for prefix in _STATES]
    return np.array([[-1 if after is None else _STATES.index(after) for after in row] for row in rows], dtype=np.int8)


_NEXT = _tabulated()  # (S, 256): the state after each byte, -1 where it is invalid


# ---- when to follow it ------------------------------------------------------------------------------

Answer = TypeVar("Answer")


def search_whole_characters(
    search: Callable[[Sequence[int], bool, Progress], Sequence[Answer]],
    rows: int,
    is_broken: Callable[[Answer], bool],
    *,
    draws: bool,
    progress: Progress = lambda done: None,
) -> list[Answer]:
    """Search, and repeat the search under the rule where an answer is not valid UTF-8.

    The rule costs time in every step, and bytes that form no character are rarely the most probable. Greedy search
    gives the same answer either way. Samples are drawn under the rule at once, because it changes their distribution.

    Args:
        search: returns the answers to the rows with these indices; True for a search under the rule.
        rows: number of rows.
        is_broken: tells an answer to search again.
        draws: of the search; True where its choices are random.
        progress: called with the number of rows done.
    """
    found = list(search(range(rows), draws, progress))
    broken = [] if draws else [row for row, answer in enumerate(found) if is_broken(answer)]
    if broken:
        for row, answer in zip(broken, search(broken, True, lambda done: None), strict=True):
            found[row] = answer
    return found


# ---- the automaton over tokens ----------------------------------------------------------------------


class Utf8Table:
    """The effect of every token of a vocabulary on the automaton."""

    def __init__(self, spellings: Sequence[bytes], device: torch.device):
        after = np.repeat(np.arange(len(_STATES), dtype=np.int8)[:, None], len(spellings), axis=1)
        for token, spelt in enumerate(spellings):
            if token > EOS and not spelt.isascii():
                after[:, token] = _state_after(spelt)
        after[1:, EOS] = -1
        after[1:, [t for t, spelt in enumerate(spellings) if t > EOS and spelt and spelt.isascii()]] = -1
        needed = _tokens_needed(after)
        self.after = torch.from_numpy(after).to(device)  # (S, V): the state after each token, -1 where it is forbidden
        missing = np.where(after < 0, _ENOUGH, needed[after])
        self.missing = torch.from_numpy(missing.astype(np.int8)).to(device)  # (S, V): tokens that must follow each one
        self.never = (self.missing[WHOLE] >= _ENOUGH).nonzero()[:, 0]
        """Tokens that are forbidden between two characters, at any distance from the limit."""

    @classmethod
    @lru_cache(maxsize=16)  # a server needs it again for each request
    def of(cls, tokenizer: Tokenizer, device: torch.device) -> "Utf8Table | None":
        """Return the table of a tokenizer; None where its tokens are not spelt in bytes, and so are characters."""
        try:
            return cls(tokenizer.spellings, device)
        except ConfigError:
            return None


def _state_after(spelt: bytes) -> np.ndarray:
    """Return the state after a token, from each state."""
    states = np.arange(len(_STATES), dtype=np.int8)
    for byte in spelt:
        states = np.where(states < 0, np.int8(-1), _NEXT[states, byte])
    return states


def _tokens_needed(after: np.ndarray) -> np.ndarray:
    """Return the fewest tokens from each state to a complete character; ``_ENOUGH`` where no tokens lead there."""
    needed = np.full(len(_STATES), _ENOUGH)
    needed[WHOLE] = 0
    for _ in _STATES:
        needed_after = np.where(after[:, EOS + 1 :] < 0, _ENOUGH, needed[after[:, EOS + 1 :]])
        best = needed_after.min(axis=1, initial=_ENOUGH) + 1
        needed[1:] = np.minimum(needed, best)[1:]
    return np.minimum(needed, _ENOUGH)


class Utf8Rule(Rule):
    """Keep every row valid UTF-8."""

    def __init__(self, table: Utf8Table, rows: int, limits: Sequence[int] = (), *, alone: bool = False):
        """
        Args:
            alone: no other rule comes before it. Another rule could leave a row without a choice; such a row is left
                unchanged, and detecting it costs as much as the rule itself.
        """
        self.table, self.alone, device = table, alone, table.after.device
        self.memory = RowMemory(torch.zeros(rows, 2, dtype=torch.long, device=device))  # (R, 2): state, tokens left
        self.begin(limits or [torch.iinfo(torch.int32).max] * rows)

    def begin(self, limits: Sequence[int]) -> None:
        self.memory.rows[:, 1] = torch.tensor(list(limits), device=self.memory.rows.device) - 2  # this one, and EOS
        self.earliest = min(limits, default=0) - 2
        self.plain = True

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        if self.plain and self.earliest >= _ENOUGH:  # most steps of most texts
            ranked = logits.index_fill(1, self.table.never, -torch.inf) if len(self.table.never) else logits
        else:
            state, left = self.memory.rows.T
            forbidden = self.table.missing[state] > left.clamp(0, _ENOUGH - 1)[:, None]
            ranked = logits.masked_fill(forbidden, -torch.inf)
        if self.alone:
            return ranked
        nothing = ranked[:, EOS:].amax(dim=1) == -torch.inf
        return torch.where(nothing[:, None], logits, ranked)

    def follow(self, choice: Choice) -> None:
        self.memory.follow(choice)
        state, left = self.memory.rows.T
        after = self.table.after[state, choice.tokens].long().clamp(min=WHOLE)
        self.memory.rows = torch.stack([after, left - 1], dim=1)
        self.earliest -= 1
        self.plain = not bool(after.any())

    def join(self, other: Rule) -> None:
        assert isinstance(other, Utf8Rule)
        self.memory.join(other.memory)
        self.earliest, self.plain = min(self.earliest, other.earliest), self.plain and other.plain
