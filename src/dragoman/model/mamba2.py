"""Mamba-2: a state space model with one decay for each head, computed by products (Dao & Gu, arXiv:2405.21060).

    z, x, b, c, step = in(tokens)        x, b, c = silu(convolution(x, b, c))
    S_t = exp(step_t A) S_{t-1} + step_t x_t b_t^T           y_t = S_t c_t + D x_t
    out(norm(y * silu(z)))

With one decay A for each head, the scan is attention without a softmax, whose weights fade with distance: state space
duality (SSD). A text is divided into chunks; within a chunk, tokens read each other by products as in attention, and a
state for each chunk carries all that came before. The cost is linear in the length. The cache holds P x N numbers
for each head and kernel - 1 tokens of the convolution.

B batch, T newest tokens, D width, E = H P inner channels, H heads of P channels in G groups of J, N states, K chunks of
L tokens.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy, VisibleKeys
from dragoman.model.caches.summary import Summary
from dragoman.model.depthwise import DepthwiseConvolution
from dragoman.model.init import HasInitialValues
from dragoman.model.linear import Linear
from dragoman.model.mamba import initialize_step_bias
from dragoman.model.masks.visibility import Causal, Visibility
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.ops.chunked_recurrence import full_precision
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions
from dragoman.model.recurrence import ConvolvedState, Recurrence

RATES = (1.0, 16.0)
"""Range of the first decay rates -A, which are uniform; the authors' code."""


@config
class Mamba2(MixerConfig):
    """State space model whose heads have one decay each, with its convolution, gate and norm (Dao & Gu,
    arXiv:2405.21060)."""

    state: PositiveInt = 128
    """Number of states N of each channel (``state_size``)."""
    expand: PositiveInt = 2
    """Inner channels E for each channel of the model."""
    head_dim: PositiveInt = 64
    """Channels P of a head; there are E / P heads."""
    groups: PositiveInt = 1
    """Number of groups G of heads; the heads of a group share b and c, as grouped queries share keys and values."""
    kernel: PositiveInt = 4
    """Number of tokens that the convolution sums over."""
    chunk: PositiveInt = 64
    """Tokens L of a chunk (``chunk_size``): changes speed and memory, not what is computed."""
    bias: bool = False
    """Bias on the first and the last projection."""
    convolution_bias: bool = True
    norm_before_gate: bool = False
    """Normalize y before it is gated; false: after, as published models have it."""
    norm_eps: PositiveFloat = 1e-5
    smallest_step: NonNegativeFloat = 0.0
    """Smallest step size (``time_step_limit``)."""
    largest_step: PositiveFloat | None = None
    """Largest step size; None for no limit."""

    @property
    def visibility(self) -> Visibility:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Causal(window=self.kernel)

    def heads(self, dim: int) -> int:
        """Return the number of heads for a model of that width.

        Raises:
            ConfigError: sizes that do not divide one another; the message opens with the field.
        """
        heads, rest = divmod(self.expand * dim, self.head_dim)
        if rest:
            raise ConfigError(
                f"head_dim: heads of {self.head_dim} channels do not divide the {self.expand * dim} inner channels "
                f"(expand x width = {self.expand} x {dim}): choose a divisor"
            )
        if heads % self.groups:
            raise ConfigError(
                f"groups: {self.groups} groups do not divide {heads} heads (expand x width / head_dim): choose a "
                "divisor, such as 1"
            )
        return heads

    def build(self, dim: int) -> "Mamba2Layer":
        if self.largest_step is not None and self.largest_step < self.smallest_step:
            raise ConfigError(
                f"largest_step: {self.largest_step:g} is below smallest_step, {self.smallest_step:g}: exchange them"
            )
        return Mamba2Layer(self, dim, self.heads(dim))


class Mamba2Layer(MixerLayer, HasInitialValues):
    """Projections, convolution, chunked recurrence, gate and norm."""

    def __init__(self, cfg: Mamba2, dim: int, heads: int):
        super().__init__()
        self.cfg, self.visibility = cfg, cfg.visibility
        E, GN = cfg.expand * dim, cfg.groups * cfg.state
        self.sizes, self.parts = (E, E + 2 * GN, heads), (E, GN, GN)
        self.inputs = Linear(dim, sum(self.sizes), bias=cfg.bias)
        self.convolution = DepthwiseConvolution(E + 2 * GN, cfg.kernel, bias=cfg.convolution_bias)
        self.step_bias, self.skip = nn.Parameter(torch.zeros(heads)), nn.Parameter(torch.ones(heads))
        self.a_log = nn.Parameter(torch.zeros(heads))
        self.norm = GatedGroupNorm(E, cfg.groups, cfg.norm_eps, before_gate=cfg.norm_before_gate)
        self.out = Linear(E, dim, bias=cfg.bias)

    @torch.no_grad()
    def set_initial_values(self) -> None:
        """Draw decay rates and step sizes, and set D to 1."""
        self.a_log.uniform_(*RATES).log_()
        self.skip.fill_(1)
        initialize_step_bias(self.step_bias)

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> Recurrence:
        return Recurrence.of(new, seen)

    def forward(self, x: Float[Tensor, "B T D"], context: Recurrence, state: ConvolvedState) -> Float[Tensor, "B T D"]:
        exact = torch.promote_types(x.dtype, torch.float32)
        gate, inner, step = self.inputs(x).split(self.sizes, dim=-1)
        inner = F.silu(self.convolution(state.extend(inner, context), context.neighbours)).to(exact)
        step = F.softplus(step.to(exact) + self.step_bias.to(exact))
        step = step.clamp(self.cfg.smallest_step, self.cfg.largest_step)
        if context.real is not None:
            step = step.masked_fill(~context.real[..., None], 0)
        inner, b, c = inner.split(self.parts, dim=-1)
        heads, groups = inner.unflatten(-1, (-1, self.cfg.head_dim)), (self.cfg.groups, self.cfg.state)
        b, c = b.unflatten(-1, groups), c.unflatten(-1, groups)
        y = state.summary.read(self.scan, heads, step, b, c, context.starts)
        y = torch.addcmul(y, heads, self.skip.to(exact)[:, None]).flatten(2)
        return self.out(self.norm(y, gate.to(exact)).to(x.dtype))

    def scan(
        self, summary: Summary | None, x: Tensor, step: Tensor, b: Tensor, c: Tensor, starts: Tensor | None
    ) -> tuple[Tensor, Summary]:
        """Read tokens into the summary, a single state (B, G, J P, N); see ``SummaryState.read``."""
        first = None if summary is None else summary[0]
        with full_precision(x):
            rate = -self.a_log.to(x.dtype).exp()
            if x.shape[1] == 1:
                y, last = one_step(x, step, rate, b, c, first, starts)
            else:
                y, last = chunked_scan(x, step, rate, b, c, self.cfg.chunk, first, starts)
        return y, (last,)

    def new_state(self, policy: KVPolicy) -> ConvolvedState:
        return ConvolvedState(remembers=policy.remembers)


class GatedGroupNorm(nn.Module):
    """RMSNorm of y * silu(gate) over the channels of each group, or of y alone before the gate."""

    def __init__(self, channels: int, groups: int, eps: float, *, before_gate: bool):
        super().__init__()
        self.weight, self.groups, self.eps = nn.Parameter(torch.ones(channels)), groups, eps
        self.before_gate = before_gate

    def forward(self, y: Float[Tensor, "B T E"], gate: Float[Tensor, "B T E"]) -> Float[Tensor, "B T E"]:
        gate = F.silu(gate)
        return self.normed(y) * gate if self.before_gate else self.normed(y * gate)

    def normed(self, y: Float[Tensor, "B T E"]) -> Float[Tensor, "B T E"]:
        group = y.unflatten(-1, (self.groups, -1))
        return F.rms_norm(group, group.shape[-1:], None, self.eps).flatten(-2) * self.weight.to(y.dtype)


# ---- the recurrence -----------------------------------------------------------------------------------


def one_step(
    x: Float[Tensor, "B 1 H P"],
    step: Float[Tensor, "B 1 H"],
    a: Float[Tensor, " H"],
    b: Float[Tensor, "B 1 G N"],
    c: Float[Tensor, "B 1 G N"],
    first: Float[Tensor, "B G JP N"] | None,
    starts: Bool[Tensor, "#B 1"] | None,
) -> tuple[Float[Tensor, "B 1 H P"], Float[Tensor, "B G JP N"]]:
    """Compute a single token: the form of decoding. Arguments as in ``chunked_scan``."""
    (B, G, N), P = b.shape[::2] + b.shape[3:], x.shape[3]
    added = (x * step[..., None]).view(B, G, -1, 1) * b.view(B, G, 1, N)
    if first is None:
        state = added
    else:
        decay = (step * a).exp()
        decay = decay if starts is None else decay.masked_fill(starts[..., None], 0)
        state = torch.addcmul(added, first, decay.view(B, G, -1).repeat_interleave(P, dim=2)[..., None])
    return (state @ c.view(B, G, N, 1)).view(x.shape), state


def chunked_scan(
    x: Float[Tensor, "B T H P"],
    step: Float[Tensor, "B T H"],
    a: Float[Tensor, " H"],
    b: Float[Tensor, "B T G N"],
    c: Float[Tensor, "B T G N"],
    chunk: int,
    first: Float[Tensor, "B G JP N"] | None = None,
    starts: Bool[Tensor, "#B T"] | None = None,
) -> tuple[Float[Tensor, "B T H P"], Float[Tensor, "B G JP N"]]:
    """Return the outputs S_t c_t and the last state, by products over chunks (section 6 of the paper).

    Args:
        x: inputs of each head.
        step: step sizes, 0 for tokens that leave the state as it is.
        a: negative rates of the decay.
        b: weights of the input in each state.
        c: weights of each state in the output.
        chunk: tokens of a chunk.
        first: the state before the first token; None: zeros.
        starts: True on tokens before which the state is emptied.
    """
    (B, T, H, P), (G, N) = x.shape, b.shape[2:]
    L = min(chunk, T)
    behind = -T % L
    if torch.compiler.is_compiling():  # a program for all lengths: two chunks at least, and padding behind every text
        L, behind = chunk, -T % chunk + chunk
    x, b, c = (F.pad(t, (0, 0, 0, 0, 0, behind)).unflatten(1, (-1, L)) for t in (x * step[..., None], b, c))
    rates = F.pad(step * a, (0, 0, 0, behind)).unflatten(1, (-1, L)).movedim(-1, 2)  # (B, K, H, L)
    within = Decays.within(rates, None if starts is None else F.pad(starts, (0, behind)).unflatten(1, (-1, L)))
    b, c = b.movedim(3, 2), c.movedim(3, 2)  # (B, K, G, L, N)
    heads = x.movedim(3, 2).unflatten(2, (G, -1))  # (B, K, G, J, L, P)
    weights = (c @ b.mT)[:, :, :, None] * within.between.unflatten(2, (G, -1))
    inside = (weights @ heads).flatten(2, 3)  # (B, K, H, L, P)
    ends = (
        _grouped(x * within.to_end.movedim(2, 3)[..., None], G).mT @ b
    )  # (B, K, G, JP, N): the state of each chunk alone
    states = _carried(ends, within.through, x.new_zeros(B, G, H // G * P, N) if first is None else first)
    earlier = (c @ states[:, :-1].mT).unflatten(-1, (-1, P)).movedim(3, 4).flatten(2, 3)  # (B, K, H, L, P)
    y = torch.addcmul(inside, earlier, within.from_begin[..., None])
    return y.movedim(2, 3).flatten(1, 2)[:, :T], states[:, -1]


def _grouped(x: Float[Tensor, "B K L H P"], G: int) -> Float[Tensor, "B K G L JP"]:
    return x.unflatten(3, (G, -1)).flatten(4).movedim(3, 2)


class Decays(NamedTuple):
    """Decays within chunks; 0 between tokens of different texts."""

    between: Float[Tensor, "B K H L L"]
    """From token j (last dimension) to token i; 0 for j > i."""
    from_begin: Float[Tensor, "B K H L"]
    """From the state before the chunk to each token."""
    to_end: Float[Tensor, "B K H L"]
    """From each token to the end of the chunk."""
    through: Float[Tensor, "B K H"]
    """Logarithm of the decay over the whole chunk."""

    @classmethod
    def within(cls, rates: Float[Tensor, "B K H L"], starts: Bool[Tensor, "#B K L"] | None) -> "Decays":
        """Compute the decays from each token's exponent."""
        sums = rates.cumsum(dim=-1)
        future = torch.ones(sums.shape[-1], sums.shape[-1], dtype=torch.bool, device=sums.device).triu(1)
        between, to_end = sums[..., :, None] - sums[..., None, :], sums[..., -1:] - sums
        if starts is None:
            return cls(between.masked_fill(future, -torch.inf).exp(), sums.exp(), to_end.exp(), sums[..., -1])
        text: Int[Tensor, "B K 1 L"] = starts.cumsum(dim=-1)[:, :, None]  # counted within each chunk
        apart = future | (text[..., :, None] != text[..., None, :])
        begun, ended = text > 0, text != text[..., -1:]
        return cls(
            between.masked_fill(apart, -torch.inf).exp(),
            sums.masked_fill(begun, -torch.inf).exp(),
            to_end.masked_fill(ended, -torch.inf).exp(),
            sums[..., -1].masked_fill(begun[..., -1], -torch.inf),
        )


def _carried(
    ends: Float[Tensor, "B K G JP N"], through: Float[Tensor, "B K H"], first: Float[Tensor, "B G JP N"]
) -> Float[Tensor, "B K+1 G JP N"]:
    """Return the state before each chunk and after the last: S_k = exp(through_k) S_{k-1} + ends_k.

    One product with the decays between all pairs of chunks. Their exponents are sums of those between the two chunks,
    not differences of sums from the first chunk on, which would lose digits in long texts.
    """
    G, P = ends.shape[2], ends.shape[3] // (through.shape[2] // ends.shape[2])
    K = through.shape[1] + 1
    own = torch.ones(K, K, dtype=torch.bool, device=ends.device)
    rates = F.pad(through, (0, 0, 1, 0)).movedim(1, 2)  # (B, H, K + 1)
    # column j holds 0 on the diagonal and below it the rates from j + 1 on: their running sum is the exponent from j
    between = (
        torch.where(own.tril(-1), rates[..., :, None], 0.0).cumsum(dim=-2).masked_fill(own.triu(1), -torch.inf).exp()
    )
    states = torch.cat([first[:, None], ends], dim=1).unflatten(3, (-1, P)).flatten(2, 3)  # (B, K + 1, H, P, N)
    found = between @ states.movedim(1, 2).flatten(3)  # (B, H, K + 1, PN)
    return found.unflatten(3, (P, -1)).movedim(2, 1).unflatten(2, (G, -1)).flatten(3, 4)
