"""Linformer: attention to a fixed number of learned sums of the keys and values (Wang et al., arXiv:2006.04768).

    y = softmax(q (E k)^T / sqrt(C)) (F v)

E and F (K x length) sum up a text by position, for all heads alike, so cost and memory grow with the length and not
with its square. Every token is computed from the whole text: this is for encoders only. The column of a token is that
of its position in its text, wherever it stands in a row; padding adds nothing to the sums, and each text of a packed
row has its own.

B batch, H heads, T tokens, C channels of one head, K sums of each text, N texts of a row.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.errors import ConfigError, DataError
from dragoman.model.caches.state import KVPolicy, Stateless, VisibleKeys
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Full
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions


@config
class Linformer(MixerConfig):
    """Attention to learned sums of keys and values, for encoders of texts up to a fixed length (Linformer)."""

    heads: PositiveInt
    """Number of heads H."""
    head_dim: PositiveInt | None = None
    """Channels of one head C; None for width / H."""
    length: PositiveInt
    """Longest text in tokens."""
    rank: PositiveInt = 64
    """Number of sums K that each token attends to."""
    shared: bool = True
    """Sum keys and values by the same weights (key-value sharing, section 4); false: F differs from E."""
    bias: bool = False
    """Bias on queries, keys and values, and on the output."""

    visibility = Full()

    @property
    def longest(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.length

    def channels(self, dim: int) -> int:
        """Return the channels of one head C.

        Raises:
            ConfigError: the heads do not divide the width, and ``head_dim`` is not set.
        """
        if self.head_dim is None and dim % self.heads:
            raise ConfigError(f"heads: {self.heads} heads do not divide the width {dim}; set head_dim to choose freely")
        return self.head_dim or dim // self.heads

    def build(self, dim: int) -> "LinformerLayer":
        return LinformerLayer(self, dim)

    def check_decoder(self) -> None:
        raise ConfigError(
            "kind: linformer sums up whole texts, and a decoder must not see what it is to predict: it is for "
            "encoders; use linear_attention"
        )


class LinformerContext(NamedTuple):
    """Positions of the tokens, and the texts of a packed row."""

    pos: Int[Tensor, "#B T"]
    real: Bool[Tensor, "#B T"] | None
    text: Int[Tensor, "#B T"] | None
    """Number of the text of each token; None where each row is one text."""


class LinformerLayer(MixerLayer):
    """Linformer's attention with its projections."""

    visibility = Linformer.visibility

    def __init__(self, cfg: Linformer, dim: int):
        super().__init__()
        C = cfg.channels(dim)
        self.cfg, self.head_dim = cfg, C
        self.q, self.k, self.v = (Linear(dim, cfg.heads * C, bias=cfg.bias) for _ in range(3))
        self.out = Linear(cfg.heads * C, dim, bias=cfg.bias)
        # normal with variance 1 / K, as in the lemma that the paper's theorem rests on
        self.sums = nn.ParameterList(
            nn.Parameter(torch.randn(cfg.rank, cfg.length) * cfg.rank**-0.5) for _ in range(1 if cfg.shared else 2)
        )

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> LinformerContext:
        if new.segment is None:
            return LinformerContext(new.pos.clamp(min=0), new.keep, None)
        begins = new.segment[:, 1:] != new.segment[:, :-1]
        return LinformerContext(new.pos.clamp(min=0), new.keep, F.pad(begins.cumsum(dim=1), (1, 0)))

    def forward(self, x: Float[Tensor, "B T D"], context: LinformerContext, state: Stateless) -> Float[Tensor, "B T D"]:
        self.check_length(context.pos)
        q, k, v = self.q(x), self.k(x), self.v(x)
        if context.real is not None:
            k, v = (y.masked_fill(~context.real[..., None], 0) for y in (k, v))
        sums = [self.of_texts(weight.to(k.dtype), context) for weight in self.sums]  # (B, N K, T) each
        k, v = sums[0] @ k, sums[-1] @ v
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for y in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.own_text(context, k.shape[2]))
        return self.out(mixed.transpose(1, 2).flatten(-2))

    def check_length(self, pos: Int[Tensor, "#B T"]) -> None:
        """Check that no text is longer than the sums are for.

        Raises:
            DataError: one is.
        """
        if pos.shape[1] > self.cfg.length and (needed := int(pos.max()) + 1) > self.cfg.length:
            raise DataError(
                f"model: mixer.length: a text of {needed} tokens, and linformer sums up {self.cfg.length}: shorten the "
                "text, or train with a larger length"
            )

    def of_texts(self, weight: Float[Tensor, "K length"], context: LinformerContext) -> Float[Tensor, "#B NK T"]:
        """Return the weight of each token in the sums of each text of its row; 0 in those of other texts."""
        found = weight[:, context.pos].transpose(0, 1)  # (B, K, T)
        if context.text is None:
            return found
        texts = torch.arange(int(context.text.max()) + 1, device=found.device)
        belongs = context.text[:, None] == texts[:, None]  # (B, N, T)
        return (found[:, None] * belongs[:, :, None]).flatten(1, 2)

    def own_text(self, context: LinformerContext, sums: int) -> Bool[Tensor, "#B 1 T NK"] | None:
        """Return a mask that is true on the sums of each token's own text; None where there is only one."""
        if context.text is None:
            return None
        text = torch.arange(sums, device=context.pos.device) // self.cfg.rank
        return (context.text[:, :, None] == text)[:, None]

    def new_state(self, policy: KVPolicy) -> Stateless:
        return Stateless()
