"""Gated DeltaNet: a memory of values by keys, corrected token by token (Yang et al., arXiv:2412.06464).

    q, k, v = silu(convolution(in(x)));   S_t = exp(g_t) (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T
    y_t = out(norm(q_t S_t) silu(gate(x_t)));   g_t = -exp(A) softplus(a(x_t) + dt),   beta_t = sigmoid(b(x_t))

Queries and keys have length 1. Hybrids of 2025 (Qwen3-Next, Kimi) use it in three of four layers. Training computes
chunks of tokens by products (``ops/delta_rule.py``). The state is a matrix for each head, and the inputs of the
convolution for its last tokens.

B batch, H value heads, G key heads (G divides H), T tokens, C channels of queries and keys, V channels of values.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy, VisibleKeys
from dragoman.model.caches.summary import JoinedState, Summary, SummaryState
from dragoman.model.depthwise import ConvolutionState, DepthwiseConvolution
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal, Visibility
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.ops.chunked_recurrence import widen
from dragoman.model.ops.delta_rule import gated_delta_rule
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions
from dragoman.model.recurrence import Recurrence


@config
class GatedDeltaNet(MixerConfig):
    """Gated delta rule with short convolutions and an output gate (Gated DeltaNet; Qwen3-Next)."""

    heads: PositiveInt
    """Number of value heads H: each has a state of C x V."""
    key_heads: PositiveInt | None = None
    """Number of heads of queries and keys G, which share them among value heads; None for H."""
    key_dim: PositiveInt | None = None
    """Channels of one head's queries and keys C; None for width / H."""
    value_dim: PositiveInt | None = None
    """Channels of one head's values V; None for width / H."""
    kernel: PositiveInt = 4
    """Tokens in each sum of the convolution."""
    eps: PositiveFloat = 1e-6
    """Term of the norm on each head's output."""

    @property
    def visibility(self) -> Visibility:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Causal(window=self.kernel)

    def channels(self, dim: int) -> tuple[int, int]:
        """Return the channels of one head: of queries and keys, and of values.

        Raises:
            ConfigError: the heads do not divide the width, and one of them is not set.
        """
        if dim % self.heads and not (self.key_dim and self.value_dim):
            raise ConfigError(
                f"heads: {self.heads} heads do not divide the width {dim}; set key_dim and value_dim to choose freely"
            )
        return self.key_dim or dim // self.heads, self.value_dim or dim // self.heads

    def build(self, dim: int) -> "GatedDeltaNetLayer":
        return GatedDeltaNetLayer(self, dim)


class GatedDeltaNetLayer(MixerLayer):
    """Gated delta rule with its projections, convolution, norm and gates."""

    def __init__(self, cfg: GatedDeltaNet, dim: int):
        super().__init__()
        H, G, (C, V) = cfg.heads, cfg.key_heads or cfg.heads, cfg.channels(dim)
        if H % G:
            raise ConfigError(f"key_heads: {G} heads of queries and keys do not divide {H} heads of values")
        self.cfg, self.visibility = cfg, cfg.visibility
        self.sizes, self.key_dim, self.value_dim, self.shared = [G * C, G * C, H * V], C, V, H // G
        self.inputs = Linear(dim, sum(self.sizes) + H * V, bias=False)
        """Queries, keys, values and the gate of the output."""
        self.gates = Linear(dim, 2 * H, bias=False)
        """b and a of each head."""
        self.convolution = DepthwiseConvolution(sum(self.sizes), cfg.kernel, bias=False)
        self.log_rate, self.time_bias = nn.Parameter(torch.empty(H)), nn.Parameter(torch.empty(H))
        """A and dt of each head, with initial values as published."""
        self.norm = nn.Parameter(torch.ones(V))
        self.out = Linear(H * V, dim, bias=False)
        with torch.no_grad():
            self.log_rate.uniform_(*RATES).log_()
            step = self.time_bias.uniform_(*map(math.log, TIME_STEPS)).exp_()
            step.add_((-torch.expm1(-step)).log())  # the inverse of softplus

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> Recurrence:
        return Recurrence.of(new, seen)

    def forward(self, x: Float[Tensor, "B T D"], context: Recurrence, state: JoinedState) -> Float[Tensor, "B T D"]:
        convolved, summary = state.parts
        assert isinstance(convolved, ConvolutionState) and isinstance(summary, SummaryState)
        given, gate = self.inputs(x).split([sum(self.sizes), self.sizes[2]], dim=-1)
        neighbours = context.neighbours
        mixed = F.silu(self.convolution(convolved.extend(given, neighbours.retained), neighbours))
        mixed, gates = widen(mixed, self.gates(x))
        beta, log_decay = self.rates(gates, context.real)
        q, k, v = (y.unflatten(-1, (-1, C)) for y, C in zip(mixed.split(self.sizes, -1), self.head_dims, strict=True))
        q, k = normalize(q) * self.key_dim**-0.5, normalize(k)
        y = summary.read(self.scan, q, k, v, log_decay, beta, context.starts)
        y = F.rms_norm(y, (self.value_dim,), self.norm.to(y.dtype), self.cfg.eps).flatten(-2)
        return self.out((y * F.silu(gate.to(y.dtype))).to(gate.dtype))

    @property
    def head_dims(self) -> tuple[int, int, int]:
        return self.key_dim, self.key_dim, self.value_dim

    def rates(
        self, gates: Float[Tensor, "B T H2"], real: Bool[Tensor, "#B T"] | None
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B T H"]]:
        """Return beta and the logarithm of the decay of each token and head; both leave the state at padding."""
        b, a = gates.chunk(2, dim=-1)
        rate, bias = self.log_rate.to(a.dtype).exp(), self.time_bias.to(a.dtype)
        beta, log_decay = b.sigmoid(), -rate * F.softplus(a + bias)
        if real is None:
            return beta, log_decay
        return beta.masked_fill(~real[..., None], 0), log_decay.masked_fill(~real[..., None], 0)

    def scan(
        self,
        summary: Summary | None,
        q: Float[Tensor, "B T G C"],
        k: Float[Tensor, "B T G C"],
        v: Float[Tensor, "B T H V"],
        log_decay: Float[Tensor, "B T H"],
        beta: Float[Tensor, "B T H"],
        starts: Bool[Tensor, "#B T"] | None,
    ) -> tuple[Float[Tensor, "B T H V"], Summary]:
        """Return what each token reads, and the state after the last."""
        if self.shared > 1:
            q, k = (y.repeat_interleave(self.shared, dim=2) for y in (q, k))
        q, k, v, log_decay, beta = (y.transpose(1, 2) for y in (q, k, v, log_decay, beta))
        outputs, after = gated_delta_rule(q, k, v, log_decay, beta, starts, None if summary is None else summary[0])
        return outputs.transpose(1, 2), (after,)

    def new_state(self, policy: KVPolicy) -> JoinedState:
        remembers = policy.remembers
        return JoinedState(ConvolutionState(remembers=remembers), SummaryState(remembers=remembers))


RATES = (1e-3, 16.0)
"""Range of exp(A) at the start; the authors draw from 0 on, whose logarithm is no number."""
TIME_STEPS = (1e-3, 0.1)
"""Range of softplus(dt) at the start, uniform in its logarithm."""


def normalize(x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
    """Return x / |x|, with a term against division by 0 as in the authors' kernels."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
