"""Decoding where a text that outgrows a length is read in another way: LongRoPE turns all of its tokens otherwise.

What was cached of such a text holds for the shorter one. So the state keeps the ids, and where a row passes one of the
lengths, in either direction, all of them are read again. Decoding then equals one forward of the whole text, whatever
pieces it was read in.

N sentences, R rows, T tokens so far.
"""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.model.caches.state import TowerState
from dragoman.model.interface import DecodingState
from dragoman.model.memory import DecodingMemory, TransformerState
from dragoman.model.positions.rotary import longest_of_text
from dragoman.model.positions.tokens import Positions, Tokens, positions_of


class RereadingState(TransformerState):
    """State that remembers the ids it was given, aligned at the newest token as the caches are."""

    given: Positions | None = None
    """Tokens read so far, with ids in the place of positions: rows and columns are then chosen and joined as those."""
    passed: Int[Tensor, " R"]
    """Number of limits that each row had passed when what is cached of it was computed."""

    def __init__(self, new_tower: Callable[[], TowerState], memory: DecodingMemory | None, limits: tuple[int, ...]):
        """
        Args:
            new_tower: returns the layers' caches, empty.
            memory: the encoded source.
            limits: lengths in tokens beyond which a text is read in another way.
        """
        super().__init__(new_tower(), memory)
        self.new_tower, self.limits, self.rewindable = new_tower, limits, 0

    @property
    def nbytes(self) -> int:
        return super().nbytes + (self.given.nbytes if self.given else 0)

    def tokens_to_read(self, new: Tokens) -> Tokens:
        """Return the tokens to read now: ``new``, or all, into empty caches, where a row is to be read otherwise."""
        before, given = self.given, Positions(*new)
        self.given = given if before is None else before.followed_by(given)
        everything = Tokens(self.given.pos.clamp(min=0), *self.given[1:4])
        passed = self.count_passed(everything)
        if before is None or new.ids.is_meta or torch.equal(passed, self.passed.expand_as(passed)):
            self.passed = passed
            return new
        self.passed, self.tower = passed, self.new_tower()
        self.tower.allow_rewind(self.rewindable)
        return everything

    def count_passed(self, everything: Tokens) -> Int[Tensor, " R"]:
        """Return how many of the limits the newest text of each row has passed."""
        lengths = longest_of_text(positions_of(everything))[:, -1:] + 1
        return (lengths > torch.tensor(self.limits, device=lengths.device)).sum(dim=1)

    def take(self, rows: Int[Tensor, " n"]) -> None:
        """Keep these rows of what is remembered, in this order."""
        if self.given is not None:
            self.given = self.given.select_rows(rows)
            self.passed = self.passed if len(self.passed) == 1 else self.passed[rows]

    # ---- as TransformerState, with the ids ----------------------------------------------------------

    def expand(self, beams: int) -> None:
        if self.given is not None:
            self.take(torch.arange(self.rows, device=self.given.pos.device).repeat_interleave(beams))
        super().expand(beams)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        self.take(rows)
        super().reorder(rows)

    def select(self, sentences: Int[Tensor, " N"]) -> None:
        beams = torch.arange(self.beams, device=sentences.device)
        self.take((sentences[:, None] * self.beams + beams).flatten())
        super().select(sentences)

    def join(self, other: DecodingState) -> None:
        assert isinstance(other, RereadingState) and self.given is not None and other.given is not None
        rows = self.rows, other.rows
        longest = max(self.given.pos.shape[1], other.given.pos.shape[1])
        mine, theirs = (given.pad(front=longest - given.pos.shape[1]) for given in (self.given, other.given))
        self.given = mine.stack_rows(theirs, *rows)
        counts = zip((self.passed, other.passed), rows, strict=True)
        self.passed = torch.cat([passed.expand(count) for passed, count in counts])
        super().join(other)

    def fork(self, tokens: int) -> "RereadingState | None":
        if self.given is None or (forked := super().fork(tokens)) is None:
            return None
        again = RereadingState(self.new_tower, None, self.limits)
        again.tower, again.rows = forked.tower, forked.rows
        again.given, again.passed = self.given.select_columns(slice(None, tokens)), self.passed
        return again

    def allow_rewind(self, tokens: int) -> None:
        self.rewindable = tokens
        super().allow_rewind(tokens)

    def rewind(self, tokens: int) -> None:
        super().rewind(tokens)
        if self.given is not None:
            self.given = self.given.select_columns(slice(None, self.given.pos.shape[1] - tokens))
