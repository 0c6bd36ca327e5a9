"""Mamba: a selective state space model, S6, between a convolution and a gate (Gu & Dao, arXiv:2312.00752).

    x, z = in(tokens)        x = silu(convolution(x))        step, b, c = selection(x)
    h_t = exp(step_t A) h_{t-1} + step_t b_t x_t             y_t = c_t h_t + D x_t
    out(y * silu(z))

Each of the E channels has N states. How fast they decay, what is written and what is read depends on the token: the
selection. The cache holds N E numbers and kernel - 1 tokens of the convolution, however long the text.

B batch, T newest tokens, D width, E inner channels, N states of a channel, R rank.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.model.caches.state import KVPolicy, VisibleKeys
from dragoman.model.caches.summary import Summary
from dragoman.model.depthwise import DepthwiseConvolution
from dragoman.model.init import HasInitialValues
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal, Visibility
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.ops.chunked_recurrence import full_precision
from dragoman.model.ops.selective_scan import selective_scan
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions
from dragoman.model.recurrence import ConvolvedState, Recurrence

STEP_RANGE = (1e-3, 1e-1)
"""Range of the first step sizes, of which the logarithms are uniform; both papers."""


@config
class Mamba(MixerConfig):
    """Selective state space model S6 with its convolution and gate (Gu & Dao, arXiv:2312.00752)."""

    state: PositiveInt = 16
    """Number of states N of each channel (``state_size``)."""
    expand: PositiveInt = 2
    """Inner channels E for each channel of the model."""
    kernel: PositiveInt = 4
    """Number of tokens that the convolution sums over."""
    rank: PositiveInt | None = None
    """Rank R of the projection to step sizes (``time_step_rank``); None: a sixteenth of the width, rounded up."""
    bias: bool = False
    """Bias on the first and the last projection."""
    convolution_bias: bool = True

    @property
    def visibility(self) -> Visibility:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Causal(window=self.kernel)

    def step_rank(self, dim: int) -> int:
        """Return the rank R for a model of that width."""
        return self.rank or math.ceil(dim / 16)

    def build(self, dim: int) -> "MambaLayer":
        return MambaLayer(self, dim)


class MambaLayer(MixerLayer, HasInitialValues):
    """Projections, convolution, selective scan and gate."""

    undecayed = ("a_log",)

    def __init__(self, cfg: Mamba, dim: int):
        super().__init__()
        self.cfg, self.visibility = cfg, cfg.visibility
        E, N, R = cfg.expand * dim, cfg.state, cfg.step_rank(dim)
        self.sizes = (R, N, N)
        self.inputs = Linear(dim, 2 * E, bias=cfg.bias)
        self.convolution = DepthwiseConvolution(E, cfg.kernel, bias=cfg.convolution_bias)
        self.selection, self.step = Linear(E, R + 2 * N, bias=False), Linear(R, E, bias=False)
        self.step_bias, self.skip = nn.Parameter(torch.zeros(E)), nn.Parameter(torch.ones(E))
        self.a_log = nn.Parameter(torch.zeros(E, N))
        self.out = Linear(E, dim, bias=cfg.bias)

    @torch.no_grad()
    def set_initial_values(self) -> None:
        """Set A to -1 .. -N in every channel, D to 1, and the step sizes at random (section 3.6 of the paper)."""
        E, N = self.a_log.shape
        self.a_log.copy_(torch.arange(1, N + 1, dtype=self.a_log.dtype, device=self.a_log.device).log().expand(E, N))
        self.skip.fill_(1)
        nn.init.uniform_(self.step.weight, -(self.sizes[0] ** -0.5), self.sizes[0] ** -0.5)
        initialize_step_bias(self.step_bias)

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> Recurrence:
        return Recurrence.of(new, seen)

    def forward(self, x: Float[Tensor, "B T D"], context: Recurrence, state: ConvolvedState) -> Float[Tensor, "B T D"]:
        exact = torch.promote_types(x.dtype, torch.float32)  # decays are close to 1, and their products long
        inner, gate = self.inputs(x).chunk(2, dim=-1)
        inner = F.silu(self.convolution(state.extend(inner, context), context.neighbours))
        step, b, c = self.selection(inner).split(self.sizes, dim=-1)
        step = F.softplus(self.step(step).to(exact) + self.step_bias.to(exact))
        if context.real is not None:
            step = step.masked_fill(~context.real[..., None], 0)
        inner = inner.to(exact)
        y = state.summary.read(self.scan, inner, step, b.to(exact), c.to(exact), context.starts)
        return self.out(torch.addcmul(y, inner, self.skip.to(exact)).mul(F.silu(gate)).to(x.dtype))

    def scan(
        self, summary: Summary | None, x: Tensor, step: Tensor, b: Tensor, c: Tensor, starts: Tensor | None
    ) -> tuple[Tensor, Summary]:
        """Read tokens into the summary, a single state (B, N, E); see ``SummaryState.read``."""
        first = None if summary is None else summary[0]
        with full_precision(x):
            y, last = selective_scan(x, step, -self.a_log.to(x.dtype).t().exp(), b, c, first, starts)
        return y, (last,)

    def new_state(self, policy: KVPolicy) -> ConvolvedState:
        return ConvolvedState(remembers=policy.remembers)


@torch.no_grad()
def initialize_step_bias(bias: Float[Tensor, " E"]) -> None:
    """Set the biases to the inverse softplus of step sizes whose logarithms are uniform in ``STEP_RANGE``."""
    low, high = map(math.log, STEP_RANGE)
    step = torch.empty_like(bias).uniform_(low, high).exp()
    bias.copy_(step + (-torch.expm1(-step)).log())
