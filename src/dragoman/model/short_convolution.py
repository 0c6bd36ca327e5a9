"""A gated convolution over a few neighbouring tokens: the mixer of most layers of LFM2 (Liquid AI, arXiv:2511.23404).

    B, C, x = in(tokens);  y = out(C * convolution(B * x))

Each channel is a weighted sum over ``kernel`` successive tokens of one text; the two gates B and C are computed from
the tokens themselves. Its cost for each token does not grow with the text, and its cache holds kernel - 1 tokens.

B batch, T newest tokens, K cached and newest tokens, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy, LayerState, VisibleKeys
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal, Full, Visibility
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions


@config
class ShortConvolution(MixerConfig):
    """Gated convolution over neighbouring tokens (LFM2); for hybrids with attention, which sees further."""

    kernel: PositiveInt = 3
    """Number of tokens in each sum."""
    bias: bool = False
    """Bias on the convolution and on both projections."""
    causal: bool = True
    """Sum over a token and those before it; false: as many on either side, for encoders."""

    @property
    def visibility(self) -> Visibility:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Causal(window=self.kernel) if self.causal else Full()

    def build(self, dim: int) -> "ShortConvolutionLayer":
        if not self.causal and self.kernel % 2 == 0:
            raise ConfigError(f"kernel: {self.kernel} tokens have no middle one: choose an odd number, or causal: true")
        return ShortConvolutionLayer(self, dim)

    def check_decoder(self) -> None:
        if not self.causal:
            raise ConfigError("causal: a decoder must not see what it is to predict: only true fits here")


class ShortConvolutionLayer(MixerLayer):
    """Gated depthwise convolution with its projections."""

    def __init__(self, cfg: ShortConvolution, dim: int):
        super().__init__()
        self.cfg, self.visibility = cfg, cfg.visibility
        self.inputs, self.out = Linear(dim, 3 * dim, bias=cfg.bias), Linear(dim, dim, bias=cfg.bias)
        self.convolution = nn.Conv1d(dim, dim, cfg.kernel, groups=dim, bias=cfg.bias)
        behind = 0 if cfg.causal else cfg.kernel // 2
        self.shifts = range(cfg.kernel - 1 - behind, -1 - behind, -1)
        """For each weight of the kernel the distance back to its token; negative for later tokens."""

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> "Neighbours":
        return Neighbours.of(new, seen)

    def forward(
        self, x: Float[Tensor, "B T D"], context: "Neighbours", state: "ConvolutionState"
    ) -> Float[Tensor, "B T D"]:
        before, after, value = self.inputs(x).chunk(3, dim=-1)
        return self.out(after * self.convolve(state.extend(before * value, context.retained), context))

    def convolve(self, x: Float[Tensor, "B K D"], neighbours: "Neighbours") -> Float[Tensor, "B T D"]:
        """Return the weighted sums over each of the newest tokens and its neighbours, channel by channel."""
        weight = self.convolution.weight[:, 0].to(x.dtype)  # (D, kernel)
        terms = (neighbours.shifted(x, shift) * weight[:, i] for i, shift in enumerate(self.shifts))
        total = sum(terms, start=x.new_zeros(()))
        return total if self.convolution.bias is None else total + self.convolution.bias.to(x.dtype)

    def new_state(self, policy: KVPolicy) -> "ConvolutionState":
        return ConvolutionState(remembers=policy.remembers)


class Neighbours(NamedTuple):
    """Neighbours of the newest tokens within their own text."""

    newest: int
    """Number of newest tokens T."""
    retained: Int[Tensor, " L"] | None
    """Columns that later tokens may need; None for all."""
    positions: Positions
    """Positions of all K columns, the newest last."""
    column: Int[Tensor, "B K"] | None = None
    """Columns of the real tokens of each row, in text order; None where nothing is padded and columns are in order."""
    rank: Int[Tensor, "B T"] | None = None
    """Index of each of the newest tokens in ``column``."""

    @classmethod
    def of(cls, new: Positions, seen: VisibleKeys) -> "Neighbours":
        newest, positions = new.pos.shape[1], seen.positions
        if positions.keep is None and positions.segment is None:
            return cls(newest, seen.retained, positions)
        real = torch.ones_like(positions.pos, dtype=torch.bool) if positions.keep is None else positions.keep
        column = torch.argsort(~real, dim=1, stable=True)
        return cls(newest, seen.retained, positions, column, (real.cumsum(dim=1) - 1)[:, -newest:])

    def shifted(self, x: Float[Tensor, "B K D"], by: int) -> Float[Tensor, "B T D"]:
        """Return, for each of the newest tokens, the vector ``by`` tokens before it; zeros outside its text."""
        if self.column is None or self.rank is None:
            first = x.shape[1] - self.newest - by
            ahead = max(0, first + self.newest - x.shape[1])
            return F.pad(x[:, max(0, first) : x.shape[1] - max(0, by)], (0, 0, max(0, -first), ahead))[:, : self.newest]
        wanted = self.rank - by
        column = self.column.gather(1, wanted.clamp(0, x.shape[1] - 1).expand(len(self.column), -1))
        found = torch.take_along_dim(x, column[..., None], dim=1)
        return found.masked_fill(~self.is_neighbour(column, by)[..., None], 0)

    def is_neighbour(self, column: Int[Tensor, "B T"], by: int) -> Bool[Tensor, "B T"]:
        """Return whether ``column`` holds real tokens of the same text, ``by`` positions before each newest token."""
        pos, keep, segment = self.positions[:3]
        fits = pos.expand(len(column), -1).gather(1, column) == pos[:, -self.newest :] - by
        if keep is not None:
            keep = keep.expand(len(column), -1)
            fits = fits & keep[:, -self.newest :] & keep.gather(1, column)
        if segment is not None:
            segment = segment.expand(len(column), -1)
            fits = fits & (segment[:, -self.newest :] == segment.gather(1, column))
        return fits


class ConvolutionState(LayerState):
    """Cache of the convolution's inputs, for the tokens that later ones may need; columns match their positions."""

    def __init__(self, *, remembers: bool):
        self.remembers = remembers
        self.past: Float[Tensor, "B K D"] | None = None

    def extend(self, new: Float[Tensor, "B T D"], retained: Int[Tensor, " L"] | None) -> Float[Tensor, "B K D"]:
        """Append ``new`` and return all inputs, ``new`` last; keep only the columns ``retained`` (None for all)."""
        if not self.remembers:
            return new
        seen = new if self.past is None else torch.cat([self.past, new], dim=1)
        self.past = seen if retained is None else seen.index_select(1, retained)
        return seen

    def forget(self, retained: Int[Tensor, " L"]) -> None:
        if self.past is not None:
            self.past = self.past.index_select(1, retained)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        if self.past is not None:
            self.past = self.past.index_select(0, rows)

    def join(self, other: LayerState) -> None:
        assert isinstance(other, ConvolutionState)
        if self.past is None or other.past is None:
            return
        longest = max(self.past.shape[1], other.past.shape[1])
        both = (F.pad(past, (0, 0, longest - past.shape[1], 0)) for past in (self.past, other.past))
        self.past = torch.cat([*both])

    def rewind(self, tokens: int) -> None:
        if self.past is not None:
            self.past = self.past[:, : self.past.shape[1] - tokens]

    @property
    def nbytes(self) -> int:
        return 0 if self.past is None else self.past.nbytes
