"""State of a Transformer for a batch: the encoded source, and while decoding the target's caches.

N sentences, S source length, D width, R rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.model.caches.state import KVPolicy, TowerState
from dragoman.model.caches.storage import KV
from dragoman.model.interface import DecodingState
from dragoman.model.ops.elementwise import cast_for_products
from dragoman.model.positions.tokens import Positions

CrossLayer = Any
"""Layer that attends to a source: its ``key_value`` returns the keys and values of source vectors (N, S, D)."""


class Memory:
    """Encoded source in training: each cross-attention projects it when it is read."""

    def __init__(self, x: Float[Tensor, "N S D"], positions: Positions):
        self.x, self.positions = cast_for_products(x), positions

    @property
    def sentences(self) -> int:
        return len(self.x)

    def read(self, layer: int, attention: CrossLayer) -> KV:
        """Return the source's keys and values for the cross-attention of decoder layer ``layer``."""
        return attention.key_value(self.x)


class DecodingMemory(ABC):
    """Encoded source while decoding, one for the rows of a sentence."""

    @abstractmethod
    def select_sentences(self, sentences: Int[Tensor, " N"]) -> None:
        """Keep the sources of these sentences, in this order."""

    @abstractmethod
    def join(self, other: Any) -> None:
        """Append the sources of ``other``, which is of the same class; the shorter side is padded."""

    @property
    @abstractmethod
    def nbytes(self) -> int: ...


class ProjectedMemory(Memory, DecodingMemory):
    """Encoded source while decoding: keys and values of every layer, projected once."""

    def __init__(self, memory: Memory, attentions: Sequence[CrossLayer], policy: KVPolicy):
        self.count, self.positions = memory.sentences, memory.positions
        projected = (memory.read(i, attention) for i, attention in enumerate(attentions))
        self.layers = [policy.store(KV(kv.k.contiguous(), kv.v.contiguous())) for kv in projected]  # read at every step

    @property
    def sentences(self) -> int:
        return self.count

    def read(self, layer: int, attention: CrossLayer) -> KV:
        return self.layers[layer].read()

    def select_sentences(self, sentences: Int[Tensor, " N"]) -> None:
        self.count = len(sentences)
        self.positions = self.positions.select_rows(sentences)
        self.layers = [kv.select_rows(sentences) for kv in self.layers]

    def join(self, other: "ProjectedMemory") -> None:
        """Append the sources of ``other``; the shorter side is padded."""
        self.trim_padding()
        longest = max(memory.positions.pos.shape[1] for memory in (self, other))
        mine, theirs = (m.positions.pad(behind=longest - m.positions.pos.shape[1]) for m in (self, other))
        self.positions = mine.stack_rows(theirs, self.count, other.count)
        self.layers = [a.stack_rows(b) for a, b in zip(self.layers, other.layers, strict=True)]
        self.count += other.count

    def trim_padding(self) -> None:
        """Drop columns at the end that are padding in every row."""
        if self.positions.keep is not None:
            length = int(self.positions.keep.any(dim=0).nonzero().max()) + 1
            self.positions = self.positions.select_columns(slice(None, length))
            self.layers = [kv.truncated(length) for kv in self.layers]

    @property
    def nbytes(self) -> int:
        return self.positions.nbytes + sum(kv.nbytes for kv in self.layers)


class TransformerState(DecodingState):
    """Decoding state of a Transformer. The rows of a sentence share its source, stored once; see ``Attention.read``."""

    def __init__(self, tower: TowerState, memory: DecodingMemory | None):
        self.tower, self.memory = tower, memory
        self.rows = 0
        """Number of rows of the newest tokens; 0 before the first."""

    @property
    def length(self) -> int:
        return self.tower.length

    @property
    def nbytes(self) -> int:
        return self.tower.nbytes + (self.memory.nbytes if self.memory else 0)

    def expand(self, beams: int) -> None:
        assert self.beams == 1, "already expanded"
        self.beams = beams
        if self.tower.last is not None:
            rows = torch.arange(self.rows, device=self.tower.last.pos.device)
            self.tower.reorder(rows.repeat_interleave(beams))
        self.rows *= beams

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        self.tower.reorder(rows)

    def fork(self, tokens: int) -> "TransformerState | None":
        if self.memory is not None or self.rows != 1 or (tower := self.tower.fork(tokens)) is None:
            return None
        forked = TransformerState(tower, None)
        forked.rows = 1
        return forked

    def allow_rewind(self, tokens: int) -> None:
        self.tower.allow_rewind(tokens)

    def rewind(self, tokens: int) -> None:
        self.tower.rewind(tokens)

    def select(self, sentences: Int[Tensor, " N"]) -> None:
        beams = torch.arange(self.beams, device=sentences.device)
        self.tower.reorder((sentences[:, None] * self.beams + beams).flatten())
        self.rows = len(sentences) * self.beams
        if self.memory is not None:
            self.memory.select_sentences(sentences)

    def join(self, other: DecodingState) -> None:
        assert isinstance(other, TransformerState) and self.beams == other.beams
        self.tower.join(other.tower, self.rows, other.rows)
        self.rows += other.rows
        if self.memory is not None and other.memory is not None:
            self.memory.join(other.memory)
