"""Streaming detokenizer: tokens to text one at a time, with stop strings."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from dragoman.decode.search.rule import Rule, TokenMemory
from dragoman.decode.search.strategy import Choice
from dragoman.text.tokens.tokenizer import PAD, Tokenizer

_UNFINISHED = "\ufffd"
"""Character that a tokenizer decodes bytes to that are no character, or not yet one."""


class TextStream:
    """Text that grows by tokens, in pieces that are final.

    A piece never ends inside a character, and never holds what may turn out to be the beginning of a stop string.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int], stops: Sequence[str] = ()):
        self.tokenizer, self.stops = tokenizer, stops
        self.context, self.pending = list(context), []
        """The newest tokens whose text is known, and the tokens after them, whose text is incomplete."""
        self.held = ""
        """Complete text that may be the beginning of a stop string."""
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the text that this token completes, which may be empty."""
        self.pending.append(token)
        fresh = self._fresh()
        return "" if fresh.endswith(_UNFINISHED) else self._show(fresh)

    def rest(self) -> str:
        """Return the remaining text when no more tokens come."""
        last = self._show(self._fresh()) + ("" if self.stopped else self.held)
        self.held = ""
        return last

    def _fresh(self) -> str:
        before = self.tokenizer.decode(self.context)
        return self.tokenizer.decode(self.context + self.pending)[len(before) :]

    def _show(self, fresh: str) -> str:
        self.context, self.pending = (self.pending or self.context), []
        if self.stopped:
            return ""
        text = self.held + fresh
        if (end := first_stop(text, self.stops)) is not None:
            self.stopped, self.held = True, ""
            return text[:end]
        keep = max((n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first stop string begins; None if there is none."""
    return min((at for at in map(text.find, stops) if at >= 0), default=None)


class StopAt(Rule):
    """End an answer that contains a stop string."""

    def __init__(self, stops: Sequence[str], tokenizer: Tokenizer, prompt: Tensor):
        self.stops, self.tokenizer = stops, tokenizer
        self.reach = 5 + max(len(stop.encode()) for stop in stops)  # a token is at least a byte
        self.newest = TokenMemory(prompt[:, -1:])
        """The newest tokens, those before an answer included: a tokenizer may drop a space where a text begins."""

    def complete(self) -> Bool[Tensor, " R"] | None:
        rows = [[t for t in row if t != PAD] for row in self.newest.rows.tolist()]
        texts, before = (self.tokenizer.decode_batch(some) for some in (rows, [row[:1] for row in rows]))
        tails = (text[len(first) :] for text, first in zip(texts, before, strict=True))
        stopped = [first_stop(tail, self.stops) is not None for tail in tails]
        return torch.tensor(stopped, device=self.newest.rows.device) if any(stopped) else None

    def follow(self, choice: Choice) -> None:
        self.newest.append(choice)
        self.newest.rows = self.newest.rows[:, -self.reach :]

    def join(self, other: Rule) -> None:
        assert isinstance(other, StopAt)
        self.newest.join(other.newest)
