"""Reformer attention: shared queries and keys, found by locality-sensitive hashing (Kitaev et al., arXiv:2001.04451).

Queries and keys are one projection; keys are scaled to equal length. In each of several rounds, random directions R
hash a vector x to the bucket argmax [xR; -xR], so that vectors of a similar direction often meet in one. A token sees,
in each round, the last ``chunk`` earlier tokens of its bucket; it sees itself only if there is none in any round. The
output is one softmax over the union of these, in which a token found by several rounds counts once (equation 5's
N_ij). With ``causal: false`` it sees as many later tokens of its bucket, too.

Training sorts the tokens of each round by bucket and then by place, and attends within sorted blocks and the block
before: time and memory grow as T log T, for the sorting. What differs from the paper:

- The paper cuts the sorted tokens into chunks of fixed places and attends within a chunk and the one before. Where a
  chunk begins then depends on later tokens and on the length. Here the chunk is counted within the bucket, from the
  token back. So a token's set depends on the tokens before it alone, and is the same in one forward, in a batch,
  beside padding and when decoding from a cache.
- The number of buckets is fixed, where the paper's grows with the length, for the same reason.
- The directions are drawn once, from ``seed``, and stored with the weights, where the paper draws them anew at each
  step: a run that is resumed goes on to the bit. They are rounded to bfloat16, so that every precision hashes by the
  same ones.
- Rotary positions turn queries and keys after they are hashed: buckets go by content.

A hash is a step function: where two directions tie to within rounding, another batch size or precision may choose the
other bucket. The reversible layers and the chunked feed-forward of the paper are not part of a mixer; activation
checkpointing (``train.recompute``) serves their purpose.

B batch, T newest tokens, K cached and newest tokens, D width, H heads, C channels of one head, R rounds, S slots in N
blocks of b, V keys of a block.
"""

from collections.abc import Hashable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from dragoman.config import config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.attention import masked_softmax
from dragoman.model.block_sparse import allowed_pairs, piece, pieces, resolve_heads
from dragoman.model.caches.state import KV, KVPolicy, LayerState, VisibleKeys
from dragoman.model.caches.summary import JoinedState
from dragoman.model.depthwise import ConvolutionState
from dragoman.model.dropout import DropoutRate, dropout
from dragoman.model.exact import is_plain
from dragoman.model.linear import Linear
from dragoman.model.masks.token_blocks import take_rows
from dragoman.model.masks.visibility import AttentionMask, Causal, Full, VisibilityRule
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.ops.chunked_recurrence import full_precision
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.position import NoPosition, RelativePosition
from dragoman.model.positions.rotary import DynamicNtkScaling, Rotary, RotaryGrid
from dragoman.model.positions.tokens import Positions
from dragoman.model.scorer import Scorer

EPS = 1e-6
"""Added to the mean square of a key before it is scaled to length 1."""


@config
class Reformer(MixerConfig):
    """Attention within buckets of locality-sensitive hashing (Reformer, arXiv:2001.04451)."""

    heads: PositiveInt | None = None
    """Number of heads H; None for one for every 64 channels of the width."""
    head_dim: PositiveInt | None = None
    """Channels of one head C; None for width / H."""
    position: RelativePosition = Rotary()
    """Rotary, or none: other schemes act on scores between all places of a text."""
    buckets: PositiveInt = 32
    """Number of buckets in each round; an even number, about twice the length over ``chunk``."""
    rounds: PositiveInt = 2
    """Number of rounds of hashing: more find more of what full attention would weight most."""
    chunk: PositiveInt = 64
    """Number of last tokens of its bucket that a token sees in each round."""
    seed: NonNegativeInt = 0
    """Seed of the random directions."""
    bias: bool = False
    """Bias on all projections."""
    dropout: DropoutRate = 0.0
    """Dropout on the attention weights."""
    causal: bool = True
    """See only earlier tokens; false: both ways, for encoders."""

    @property
    def visibility(self) -> VisibilityRule:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Causal() if self.causal else Full()

    def sizes(self, dim: int) -> tuple[int, int]:
        """Return the number of heads and the channels of each."""
        heads = resolve_heads(self.heads, dim)
        if self.head_dim is None and dim % heads:
            raise ConfigError(f"heads: {heads} heads do not divide the width {dim}; set head_dim to choose freely")
        return heads, self.head_dim or dim // heads

    def build(self, dim: int) -> "ReformerAttention":
        if self.buckets % 2:
            raise ConfigError(
                f"buckets: {self.buckets} is odd, and each direction has an opposite: choose {self.buckets + 1}"
                + f" or {self.buckets - 1}" * (self.buckets > 1)
            )
        self.check_position()
        return ReformerAttention(self, dim)

    def check_position(self) -> None:
        """Check that positions turn queries and keys, and do nothing to the scores of pairs.

        Raises:
            ConfigError: they do; the message opens with the field.
        """
        told = None
        if not isinstance(self.position, NoPosition | Rotary | RotaryGrid):
            told = f"position: {kind_of(type(self.position))} acts"
        elif isinstance(getattr(self.position, "scaling", None), DynamicNtkScaling):
            told = "position.scaling: dynamic_ntk_scaling acts"
        if told:
            raise ConfigError(
                f"{told} on pairs of tokens, and here only those of a bucket meet: use rotary, or no_position"
            )

    def build_position(self, dim: int) -> RelativeScheme:
        return self.position.build(*self.sizes(dim))

    def position_key(self, dim: int) -> Hashable:
        return (self.position, *self.sizes(dim)) if self.position.shared else None

    @property
    def needs_grid(self) -> bool:
        return getattr(self.position, "needs_grid", False)

    def check_decoder(self) -> None:
        if not self.causal:
            raise ConfigError("causal: a decoder must not see what it is to predict: only true fits here")


class ReformerContext:
    """Positions and masks of one forward, shared by all layers of equal visibility and positions."""

    def __init__(self, new: Positions, seen: VisibleKeys, scheme: RelativeScheme, dtype: torch.dtype):
        self.new, self.seen = new, seen
        self.retained = seen.retained
        self.rotation = scheme.effect(new, new.select_columns(slice(0, 1)), dtype)
        self.whole = new.pos.shape[1] == seen.positions.pos.shape[1] and seen.visibility.window is None
        """True where every token is among the newest."""

    def allowed(self) -> Bool[Tensor, "#B 1 T K"]:
        """Return which keys each query may see, whatever their buckets."""
        return allowed_pairs(self.seen.visibility, self.new, self.seen.positions)

    def texts(self) -> Int[Tensor, "#B T"]:
        """Return the number of the text that each token is of; T for padding."""
        pos, keep, segment = self.new[:3]
        text = torch.zeros_like(pos if segment is None else segment)
        if segment is not None:
            text = F.pad((segment[:, 1:] != segment[:, :-1]).long(), (1, 0)).cumsum(dim=1)
        return text if keep is None else text.expand(len(keep), -1).masked_fill(~keep, text.shape[1])


class ReformerAttention(MixerLayer):
    """Attention within buckets, with its projections."""

    rotations: Float[Tensor, "H C R n"]
    """Random directions, half as many as there are buckets."""

    def __init__(self, cfg: Reformer, dim: int):
        super().__init__()
        H, C = cfg.sizes(dim)
        self.cfg, self.heads, self.head_dim, self.visibility = cfg, H, C, cfg.visibility
        self.q = Linear(dim, H * C, bias=cfg.bias)  # and keys
        self.v = Linear(dim, H * C, bias=cfg.bias)
        self.out = Linear(H * C, dim, bias=cfg.bias)
        self.scorer = Scorer(C**-0.5)
        # for forward hooks: receive (B, H, T, K), before the mask and after softmax, only while one is registered
        self.scores, self.weights = nn.Identity(), nn.Identity()
        drawn = torch.randn(
            H, C, cfg.rounds, cfg.buckets // 2, generator=torch.Generator().manual_seed(cfg.seed), device="cpu"
        )
        self.register_buffer("rotations", drawn.bfloat16().to(self.q.weight))

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> ReformerContext:
        return ReformerContext(new, seen, scheme, dtype)

    def forward(self, x: Float[Tensor, "B T D"], context: ReformerContext, state: Any) -> Float[Tensor, "B T D"]:
        keys, hashes = state.parts
        shared, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.v))
        bucket = self.hash(shared)
        q, k = context.rotation.rotate(shared), context.rotation.rotate(unit_length(shared))
        seen = keys.extend(KV(k, v), context.retained)
        flat = hashes.extend(bucket.permute(0, 3, 1, 2).flatten(2), context.retained)
        if self.goes_by_blocks(context, x.shape[1]):
            heads = self.by_blocks(q, seen, bucket, context.texts())
        else:
            seen_bucket = flat.unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1)
            heads = self.by_mask(q, seen, bucket, seen_bucket, context.allowed())
        return self.out(heads.transpose(1, 2).flatten(-2))

    def hash(self, x: Float[Tensor, "B H T C"]) -> Int[Tensor, "B H R T"]:
        """Return the bucket of each vector in each round: the direction, or its opposite, nearest to it."""
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.no_grad(), full_precision(x):
            rotated = torch.einsum("bhtc,hcrn->bhrtn", x.to(exact), self.rotations.to(exact))
            nearest = rotated.abs().argmax(dim=-1, keepdim=True)
            opposite = rotated.gather(-1, nearest) < 0
            return (nearest + self.cfg.buckets // 2 * opposite).squeeze(-1)

    def goes_by_blocks(self, context: ReformerContext, tokens: int) -> bool:
        """Return whether to attend by sorted blocks: all tokens are here, and more than a block sees."""
        if not context.whole or self.observed:
            return False
        return torch.compiler.is_compiling() or tokens > 2 * self.cfg.chunk

    # ---- with a mask: the definition, and decoding ----

    def by_mask(
        self,
        q: Float[Tensor, "B H T C"],
        seen: KV,
        bucket: Int[Tensor, "B H R T"],
        seen_bucket: Int[Tensor, "B H R K"],
        allowed: Bool[Tensor, "#B 1 T K"],
    ) -> Float[Tensor, "B H T C"]:
        T, K = allowed.shape[-2:]
        back = torch.arange(K - T, K, device=q.device)[:, None] - torch.arange(K, device=q.device)
        same = (bucket[..., :, None] == seen_bucket[..., None, :]) & allowed[:, :, None]  # (B, H, R, T, K)
        before, after = same & (back > 0), same & (back < 0)
        near = before & (before.flip(-1).cumsum(-1).flip(-1) <= self.cfg.chunk)
        if not self.cfg.causal:
            near = near | after & (after.cumsum(-1) <= self.cfg.chunk)
        shown = near.any(dim=2)  # (B, H, T, K)
        shown = shown | (back == 0) & allowed & ~shown.any(dim=-1, keepdim=True)
        scores = self.scores(self.scorer.scores(q, seen.k))
        mask = AttentionMask(shown.flatten(0, 1)[:, None])
        weights = masked_softmax(scores.flatten(0, 1)[:, None], mask).view_as(scores)
        weights = dropout(self.weights(weights), self.dropout_rate)
        return weights @ seen.v

    # ---- by sorted blocks ----

    def by_blocks(
        self, q: Float[Tensor, "B H T C"], kv: KV, bucket: Int[Tensor, "B H R T"], text: Int[Tensor, "#B T"]
    ) -> Float[Tensor, "B H T C"]:
        """Attend within buckets, in the order of (text, bucket, place)."""
        (B, _, R, T), b = bucket.shape, self.cfg.chunk
        group = bucket + (text * self.cfg.buckets)[:, None, None]
        order = torch.argsort(group, dim=-1, stable=True)
        place = torch.argsort(order, dim=-1)  # of each token in the sorted order
        N = -(-T // b)
        wide = F.pad(order, (0, N * b - T)).flatten(2)  # (B, H, R S)

        def sort(x: Shaped[Tensor, "B H T E"]) -> Shaped[Tensor, "B H R N b E"]:
            found = take_rows(x.flatten(0, 1), wide.flatten(0, 1))
            return found.view(*x.shape[:2], R, N, b, x.shape[3])

        # what decides whether a pair meets in each round, sorted by each round: its group and its place there
        met = torch.stack([group, place], dim=-1).int().transpose(2, 3).flatten(3)  # (B, H, T, 2 R)
        filled = (torch.arange(N * b, device=met.device) < T).view(N, b, 1)
        keys = sort(met).masked_fill(~filled, -1)
        parts = (sort(q), sort(kv.k), sort(kv.v), keys.unflatten(5, (R, 2)))
        width = b * (2 if self.cfg.causal else 3)
        found = [
            piece(self._attend_blocks, *parts, start, end, last=only) for start, end, only in pieces(N, B * R * width)
        ]
        y = torch.cat(found, dim=3).flatten(3, 4)  # (B, H, R, S, C + 1)
        y = take_rows(y.flatten(0, 2), place.flatten(0, 2)).unflatten(0, place.shape[:3])
        y, log_sum = y[..., :-1], y[..., -1:]  # (B, H, R, T, .)
        whole = (y * log_sum.softmax(dim=2)).sum(dim=2).to(kv.v.dtype)
        alone = (log_sum < torch.finfo(log_sum.dtype).min / 8).all(dim=2)
        return torch.where(alone, kv.v, whole)

    def _attend_blocks(
        self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, start: int, end: int
    ) -> Float[Tensor, "B H R n b E"]:
        """Return the outputs of the sorted blocks ``start`` to ``end`` of every round, and as one channel more the
        logarithm of the sum of their exponentiated scores."""
        reach = (1, 0 if self.cfg.causal else 1)
        k, v = (neighbours(t, start, end, *reach) for t in (k, v))
        meets = self._meets(keys[:, :, :, start:end], neighbours(keys, start, end, *reach, empty=-2))
        scores = q[:, :, :, start:end] @ k.transpose(-1, -2) * self.scorer.scale
        exact = torch.promote_types(scores.dtype, torch.float32)
        scores = scores.to(exact).masked_fill(~meets, torch.finfo(exact).min / 4)
        most = scores.detach().amax(dim=-1, keepdim=True)
        weights = (scores - most).exp()
        total = weights.sum(dim=-1, keepdim=True)
        y = dropout(weights, self.dropout_rate).to(v.dtype) @ v
        return torch.cat([y.to(exact) / total, most + total.log()], dim=-1)

    def _meets(self, q: Tensor, k: Tensor) -> Bool[Tensor, "B H R n b V"]:
        """Return which pairs meet in each round and in none before it: so that each counts once."""
        found = []
        for r in range(self.cfg.rounds):
            mine = q[:, :, r], k[:, :, r]  # (B, H, n, b, R, 2), sorted by round r
            meet = self._meet_in(r, *mine)
            for earlier in range(r):
                meet = meet & ~self._meet_in(earlier, *mine)
            found.append(meet)
        return torch.stack(found, dim=2)

    def _meet_in(self, r: int, q: Tensor, k: Tensor) -> Bool[Tensor, "B H n b V"]:
        (group, place), (other, there) = q[..., r, :].unbind(-1), k[..., r, :].unbind(-1)
        back = place[..., :, None] - there[..., None, :]
        near = (back > 0) & (back <= self.cfg.chunk)
        if not self.cfg.causal:
            near = near | (back < 0) & (back >= -self.cfg.chunk)
        return near & (group[..., :, None] == other[..., None, :])

    @property
    def dropout_rate(self) -> float:
        """Dropout probability in force; 0 outside training."""
        return self.cfg.dropout if self.training else 0.0

    @property
    def observed(self) -> bool:
        """True while a hook listens to ``scores`` or ``weights``."""
        return not (is_plain(self.scores, nn.Identity) and is_plain(self.weights, nn.Identity))

    def new_state(self, policy: KVPolicy) -> LayerState:
        return JoinedState(policy.new_state(self.visibility), ConvolutionState(remembers=policy.remembers))

    def visible(self, policy: KVPolicy) -> VisibilityRule:
        return policy.restricted(self.visibility)


def unit_length(x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
    """Return keys of mean square 1: with scores divided by sqrt(C), those of unit length of the paper."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return (exact * (exact.square().mean(dim=-1, keepdim=True) + EPS).rsqrt()).to(x.dtype)


def neighbours(x: Tensor, start: int, end: int, back: int, ahead: int, empty: int = 0) -> Tensor:
    """Join each block from ``start`` to ``end`` of x (B, H, R, N, b, ...) with those from ``back`` before to ``ahead``
    after it: (B, H, R, n, V, ...), with ``empty`` where there are none."""
    N, n = x.shape[3], end - start
    first, last = start - back, end + ahead
    found = x[:, :, :, max(first, 0) : min(last, N)]
    padding = [0, 0] * (x.ndim - 4) + [max(-first, 0), max(last - N, 0)]
    found = F.pad(found, padding, value=empty)
    return torch.cat([found[:, :, :, i : i + n] for i in range(back + ahead + 1)], dim=4)
