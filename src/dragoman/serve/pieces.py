"""Continuations that are streamed: pieces of text that are final, with their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from dragoman.decode.continuation import EndReason, GenerationJob
from dragoman.decode.detokenizer import TextStream
from dragoman.serve.engine.requests import Likeliest
from dragoman.text.tokens.tokenizer import EOS


@dataclass(frozen=True)
class Piece:
    """A piece of a continuation: text that is final, and the tokens chosen since the piece before."""

    text: str
    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    likeliest: tuple[Likeliest, ...] = ()
    """Most probable tokens in the place of each, as many as were asked for."""
    ended: EndReason | None = None
    """Why the continuation ended; None except in the last piece."""


class PieceStream:
    """The text of a continuation that is streamed, cut where it is final."""

    def __init__(self, job: GenerationJob, row: Sequence[int]):
        self.job, self.text = job, TextStream(job.tokenizer, row, job.stops)
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        self.likeliest: list[Likeliest] = []

    def add(self, token: int, log_prob: float, likeliest: Likeliest = ()) -> Piece | None:
        """Return the piece that a token completes, if it does."""
        self.tokens.append(token)
        self.log_probs.append(log_prob)
        self.likeliest.append(likeliest)
        if token in (EOS, *self.job.ends):
            return None
        text = self.job.readable_text(self.text.add(token))
        return self._piece(text) if text else None

    def last(self, ended: EndReason) -> Piece:
        """Return the rest."""
        return self._piece(self.job.readable_text(self.text.rest()), ended)

    def _piece(self, text: str, ended: EndReason | None = None) -> Piece:
        piece = Piece(text, tuple(self.tokens), tuple(self.log_probs), tuple(self.likeliest), ended)
        self.tokens, self.log_probs, self.likeliest = [], [], []
        return piece
