"""mLSTM: an LSTM whose cell is a matrix, with exponential gates and no recurrence through its hidden state
(Beck et al., arXiv:2405.04517, equations 19 to 27).

    C_t = f_t C_{t-1} + i_t k_t v_t^T,    n_t = f_t n_{t-1} + i_t k_t,    i_t = exp(i(x_t)),   f_t = sigmoid(f(x_t))
    h_t = q_t C_t / max(|q_t n_t|, 1),    y_t = out(norm(h_t) sigmoid(o(x_t)))

The layer is that of xLSTM 7B (arXiv:2503.13427): gates with a soft cap, narrower queries and keys, a norm for each
head. Training computes chunks of tokens by products (``ops/chunked_recurrence.py``). C, n and the maximum m of the
gates' logarithms, by which they are divided, are the state.

B batch, H heads, T tokens, C channels of queries and keys, V channels of values.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy, VisibleKeys
from dragoman.model.caches.summary import Summary, SummaryState
from dragoman.model.init import HasInitialValues
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.ops.chunked_recurrence import LOG_ZERO, decayed_recurrence, stabilize, widen
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions
from dragoman.model.recurrence import Recurrence

EPS = 1e-6
"""Term of the denominator, as in the authors' code."""


@config
class Mlstm(MixerConfig):
    """Matrix memory with exponential gates (xLSTM's mLSTM)."""

    heads: PositiveInt
    """Number of heads H: each has a state of C x V."""
    key_dim: PositiveInt | None = None
    """Channels of one head's queries and keys C; None for half of the width / H, as in xLSTM 7B."""
    value_dim: PositiveInt | None = None
    """Channels of one head's values V; None for width / H."""
    gate_cap: PositiveFloat | None = 15.0
    """Soft cap of the gates' logarithms: they become cap tanh(x / cap). None for no cap."""
    eps: PositiveFloat = 1e-6
    """Term of the norm on each head's output."""

    visibility = Causal(window=1)

    def channels(self, dim: int) -> tuple[int, int]:
        """Return the channels of one head: of queries and keys, and of values.

        Raises:
            ConfigError: the heads do not divide the width, or half of it, and one of the two is not set.
        """
        if dim % self.heads and self.value_dim is None:
            raise ConfigError(
                f"heads: {self.heads} heads do not divide the width {dim}; set value_dim and key_dim to choose freely"
            )
        if dim % (2 * self.heads) and self.key_dim is None:
            raise ConfigError(f"heads: {self.heads} heads do not divide half of the width {dim}; set key_dim")
        return self.key_dim or dim // (2 * self.heads), self.value_dim or dim // self.heads

    def build(self, dim: int) -> "MlstmLayer":
        return MlstmLayer(self, dim)


class MlstmLayer(MixerLayer, HasInitialValues):
    """mLSTM cell with its projections, gates and norm."""

    visibility = Mlstm.visibility

    def __init__(self, cfg: Mlstm, dim: int):
        super().__init__()
        H, (C, V) = cfg.heads, cfg.channels(dim)
        self.cfg, self.key_dim, self.value_dim = cfg, C, V
        self.q, self.k = Linear(dim, H * C, bias=False), Linear(dim, H * C, bias=False)
        self.v, self.gate = Linear(dim, H * V, bias=False), Linear(dim, H * V, bias=False)
        self.input_gate, self.forget_gate = Linear(dim, H), Linear(dim, H)
        self.norm, self.out = nn.Parameter(torch.ones(H * V)), Linear(H * V, dim, bias=False)

    @torch.no_grad()
    def set_initial_values(self) -> None:
        """Let gates not depend on tokens at first: small input gates, and forget gates near 1 (arXiv:2503.13427)."""
        for gate in (self.input_gate, self.forget_gate):
            gate.weight.zero_()
        self.input_gate.bias.fill_(-10.0)
        self.forget_gate.bias.copy_(torch.linspace(3.0, 6.0, self.cfg.heads))

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> Recurrence:
        return Recurrence.of(new, seen)

    def forward(self, x: Float[Tensor, "B T D"], context: Recurrence, state: SummaryState) -> Float[Tensor, "B T D"]:
        gate = self.gate(x)
        q, k, v = (
            y.unflatten(-1, (-1, C))
            for y, C in zip(widen(self.q(x), self.k(x), self.v(x)), self.head_dims, strict=True)
        )
        log_input, forget = (self.capped(y) for y in widen(self.input_gate(x), self.forget_gate(x)))
        log_forget = F.logsigmoid(forget)
        if context.real is not None:
            padding = ~context.real[..., None]
            log_input, log_forget = log_input.masked_fill(padding, LOG_ZERO), log_forget.masked_fill(padding, 0)
        h = state.read(read_past, q * self.key_dim**-0.5, k, v, log_input, log_forget, context.starts)
        h = F.layer_norm(h, (self.value_dim,), eps=self.cfg.eps).flatten(-2) * self.norm.to(h.dtype)
        return self.out((h * gate.to(h.dtype).sigmoid()).to(gate.dtype))

    @property
    def head_dims(self) -> tuple[int, int, int]:
        return self.key_dim, self.key_dim, self.value_dim

    def capped(self, x: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """Apply ``gate_cap``."""
        cap = self.cfg.gate_cap
        return x if cap is None else cap * torch.tanh(x / cap)

    def new_state(self, policy: KVPolicy) -> SummaryState:
        return SummaryState(remembers=policy.remembers)


def read_past(
    summary: Summary | None,
    q: Float[Tensor, "B T H C"],
    k: Float[Tensor, "B T H C"],
    v: Float[Tensor, "B T H V"],
    log_input: Float[Tensor, "B T H"],
    log_forget: Float[Tensor, "B T H"],
    starts: Bool[Tensor, "#B T"] | None,
) -> tuple[Float[Tensor, "B T H V"], Summary]:
    """Return the hidden state of each token, and the summary after the last: C with n as its last column, and m."""
    q, k, v, log_input, log_forget = (y.transpose(1, 2) for y in (q, k, v, log_input, log_forget))
    cell, largest = (None, None) if summary is None else summary
    factor, log_decay, maxima = stabilize(log_input, log_forget, starts, largest, empty=0.0)
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    sums, cell = decayed_recurrence(q, k * factor[..., None], v, log_decay, starts, cell)
    least = (-maxima).exp()[..., None]  # 1, divided as numerator and denominator are
    h = sums[..., :-1] / (torch.maximum(sums[..., -1:].abs(), least) + EPS)
    return h.transpose(1, 2), (cell, maxima[..., -1])
