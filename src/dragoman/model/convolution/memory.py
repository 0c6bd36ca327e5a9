"""The encoded source of convolutional models, in training and while decoding.

N sentences, S source length, E width, R rows, T target tokens.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.model.caches.state import KVPolicy
from dragoman.model.caches.storage import KV
from dragoman.model.convolution.attention import SourceView
from dragoman.model.masks.visibility import Full, build_cross_mask
from dragoman.model.memory import DecodingMemory, ProjectedMemory
from dragoman.model.ops.elementwise import cast_for_products
from dragoman.model.positions.tokens import Positions


class SharedMemory(ProjectedMemory):
    """Keys and values of the source that all layers of a decoder share."""

    def __init__(
        self, keys: Float[Tensor, "N S E"], values: Float[Tensor, "N S E"], positions: Positions, policy: KVPolicy
    ):
        self.count, self.positions = len(keys), positions
        self.layers = [policy.store(KV(*(cast_for_products(x)[:, None].contiguous() for x in (keys, values))))]

    def view(self, target: Float[Tensor, "R T E"], new: Positions) -> SourceView:
        """Return what the decoder's layers read for target tokens at ``new``; the beams of a sentence count as one
        row."""
        merged = new.merge_beams(self.count, len(target) // self.count)
        return SourceView(target, self.layers[0].read(), build_cross_mask(Full(), merged, self.positions))


class UnfoldedMemory(DecodingMemory):
    """Representation of the source over which a decoder unfolds: one vector for each target token."""

    def __init__(self, columns: Float[Tensor, "N S E"]):
        """
        Args:
            columns: the vectors, zeros behind the last one of each sentence.
        """
        self.columns = columns

    def at(self, new: Positions, rows: int) -> Float[Tensor, "#R T E"]:
        """Return the vectors for target tokens at ``new``; zeros where the target is longer than the representation."""
        (N, S, E), T = self.columns.shape, new.pos.shape[1]
        place = new.pos.clamp(0, S - 1)
        if len(place) == 1:
            found = self.columns.index_select(1, place[0])
            found = found if rows == N else found.repeat_interleave(rows // N, dim=0)
        else:
            found = torch.take_along_dim(self.columns, place.reshape(N, -1, 1), dim=1).view(rows, T, E)
        return found.masked_fill((new.pos >= S)[..., None], 0)

    def select_sentences(self, sentences: Int[Tensor, " N"]) -> None:
        self.columns = self.columns.index_select(0, sentences)

    def join(self, other: DecodingMemory) -> None:
        assert isinstance(other, UnfoldedMemory)
        longest = max(self.columns.shape[1], other.columns.shape[1])
        both = (F.pad(m.columns, (0, 0, 0, longest - m.columns.shape[1])) for m in (self, other))
        self.columns = torch.cat([*both])

    @property
    def nbytes(self) -> int:
        return self.columns.nbytes
