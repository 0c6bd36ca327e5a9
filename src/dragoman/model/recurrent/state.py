"""Decoding state of a recurrent model: the state of its layers, and the encoded source.

N sentences, R rows.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.model.caches.summary import Summary, SummaryState
from dragoman.model.interface import DecodingState
from dragoman.model.memory import ProjectedMemory
from dragoman.model.recurrent.decoder import Source
from dragoman.model.recurrent.source_attention import source_mask


class RecurrentState(DecodingState):
    """State of a batch. The rows of a sentence share its source, stored once."""

    def __init__(self, first: Summary | None, memory: ProjectedMemory | None):
        """
        Args:
            first: the decoder's state before the first token; None for zeros.
            memory: the encoded source; None where nothing attends to it.
        """
        self.summary, self.memory, self.tokens = SummaryState(remembers=True), memory, 0
        self.summary.value = first

    @property
    def length(self) -> int:
        return self.tokens

    @property
    def nbytes(self) -> int:
        return self.summary.nbytes + (self.memory.nbytes if self.memory else 0)

    @property
    def source(self) -> Source | None:
        """The encoded source as a step reads it."""
        if self.memory is None:
            return None
        kv = self.memory.layers[0].read()
        return Source(kv, source_mask(self.memory.positions, kv.k.dtype))

    def expand(self, beams: int) -> None:
        assert self.beams == 1, "already expanded"
        self.beams = beams
        if self.summary.value is not None:
            first = self.summary.value[0]
            self.summary.reorder(torch.arange(len(first), device=first.device).repeat_interleave(beams))

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        self.summary.reorder(rows)

    def select(self, sentences: Int[Tensor, " N"]) -> None:
        beams = torch.arange(self.beams, device=sentences.device)
        self.summary.reorder((sentences[:, None] * self.beams + beams).flatten())
        if self.memory is not None:
            self.memory.select_sentences(sentences)

    def join(self, other: DecodingState) -> None:
        assert isinstance(other, RecurrentState) and self.beams == other.beams
        self.summary.join(other.summary)
        self.tokens = max(self.tokens, other.tokens)
        if self.memory is not None and other.memory is not None:
            self.memory.join(other.memory)

    def allow_rewind(self, tokens: int) -> None:
        self.summary.allow_rewind(tokens)

    def rewind(self, tokens: int) -> None:
        self.summary.rewind(tokens)
        self.tokens -= tokens
