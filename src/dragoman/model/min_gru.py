"""minGRU: a GRU whose gate and candidate depend on the token alone, so that training is parallel over time
(Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201, section 3.1 and appendix B).

    z_t = sigmoid(gate(x_t)),    h_t = (1 - z_t) h_{t-1} + z_t g(candidate(x_t)),    y_t = out(h_t)
    g(v) = v + 1/2 for v >= 0, sigmoid(v) for v < 0

The paper trains it by a cumulative sum of log(1 - z) over the text, whose rounding errors grow with the sum, and which
cannot forget the text before in a packed row. Here the logarithm log(1 - z_t) of each decay goes to the scan of Mamba
(``ops/selective_scan.py``) with one state for each channel, which sums no logarithms. Every text begins with h = 0.

B batch, T newest tokens, D width, E inner channels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.model.caches.state import KVPolicy, VisibleKeys
from dragoman.model.caches.summary import Summary, SummaryState
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.ops.chunked_recurrence import full_precision
from dragoman.model.ops.selective_scan import selective_scan
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions
from dragoman.model.recurrence import Recurrence

LEAST_GATE = -80.0
"""Least gate before its sigmoid, which is 2e-35 there: below it float32 could not divide by the decay's logarithm."""


@config
class MinGru(MixerConfig):
    """GRU whose gate and candidate do not depend on its state (minGRU; Feng et al., arXiv:2410.01201)."""

    expand: PositiveInt = 2
    """Inner channels E for each channel of the model (alpha in the paper, which tries 1 to 4)."""
    bias: bool = False
    """Bias on the gate, the candidate and the last projection."""

    visibility = Causal(window=1)

    def build(self, dim: int) -> "MinGruLayer":
        return MinGruLayer(self, dim)


class MinGruLayer(MixerLayer):
    """Gate, candidate, scan and output projection."""

    visibility = MinGru.visibility

    def __init__(self, cfg: MinGru, dim: int):
        super().__init__()
        E = cfg.expand * dim
        self.cfg = cfg
        self.gate, self.candidate = Linear(dim, E, bias=cfg.bias), Linear(dim, E, bias=cfg.bias)
        self.out = Linear(E, dim, bias=cfg.bias)

    @staticmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> Recurrence:
        return Recurrence.of(new, seen)

    def forward(self, x: Float[Tensor, "B T D"], context: Recurrence, state: SummaryState) -> Float[Tensor, "B T D"]:
        exact = torch.promote_types(x.dtype, torch.float32)  # decays are close to 1, and their products long
        gate, value = self.gate(x).to(exact).clamp(min=LEAST_GATE), self.candidate(x).to(exact)
        step = -F.logsigmoid(-gate)  # the decay 1 - z is exp(-step)
        value = positive(value) * (gate.sigmoid() / step)  # the scan multiplies by the step, which leaves z
        if context.real is not None:
            step = step.masked_fill(~context.real[..., None], 0)
        return self.out(state.read(scan, value, step, context.starts).to(x.dtype))

    def new_state(self, policy: KVPolicy) -> SummaryState:
        return SummaryState(remembers=policy.remembers)


def positive(x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Return the paper's g, which is continuous and above zero: x + 1/2 for x >= 0, sigmoid(x) below."""
    return torch.where(x >= 0, x + 0.5, x.sigmoid())


def scan(
    summary: Summary | None, value: Float[Tensor, "B T E"], step: Float[Tensor, "B T E"], starts: Tensor | None
) -> tuple[Float[Tensor, "B T E"], Summary]:
    """Read tokens into the summary, a single state (B, 1, E); see ``SummaryState.read``."""
    first = None if summary is None else summary[0]
    rate, one = -torch.ones_like(value[0, :1]), torch.ones_like(value[..., :1])
    with full_precision(value):
        h, last = selective_scan(value, step, rate, one, one, first, starts)
    return h, (last,)
