"""Mixture of experts: a router sends each token to a few of many feed-forwards (Shazeer et al., arXiv:1701.06538).

N tokens, D width, E experts, A active experts per token.
"""

from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dragoman.config import ConfigError, OneOf, config
from dragoman.model.mlp import FeedForward, Gated

Expert = Annotated[FeedForward | Gated, OneOf()]


@config
class Mixture:
    experts: int
    """Experts E."""
    active: int = 2
    """Experts A that each token goes to."""
    expert: Expert
    shared: int = 0
    """Further experts that every token goes to (DeepSeekMoE, arXiv:2401.06066)."""
    normalize: bool = True
    """Scale the weights of the chosen experts to sum 1, as Mixtral does."""
    capacity: float | None = None
    """Each expert takes at most this many times its even share, later tokens lose it (Switch); None drops no token."""
    balance: float = 0.01
    """Weight of the load-balancing loss, which is 1 when all experts get their even share (arXiv:2101.03961, eq. 4)."""
    router_z: float = 0.0
    """Weight of the squared log-sum-exp of the router's logits, which keeps them small (ST-MoE, arXiv:2202.08906)."""

    def build(self, dim: int) -> nn.Module:
        if not 1 <= self.active <= self.experts:
            raise ConfigError(f"active: {self.active} active experts of {self.experts}; choose between 1 and all")
        return MixtureLayer(self, dim)


class MixtureLayer(nn.Module):
    auxiliary: Tensor | None = None
    """Weighted balance and router losses of the last training forward, a mean over its tokens."""
    load: Tensor | None = None
    """Share of the last forward's (token, expert) assignments that each expert got (E)."""

    def __init__(self, cfg: Mixture, dim: int):
        super().__init__()
        self.cfg = cfg
        self.router = nn.Linear(dim, cfg.experts, bias=False)
        self.experts = nn.ModuleList(cfg.expert.build(dim) for _ in range(cfg.experts))
        self.shared = nn.ModuleList(cfg.expert.build(dim) for _ in range(cfg.shared))

    def forward(self, x: Float[Tensor, "B T D"], real: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """``real`` is False on padding, which goes to no expert and counts in no loss."""
        tokens = x.flatten(0, -2)
        chosen = tokens if real is None else tokens[real.expand(x.shape[:2]).flatten()]
        mixed = self.mix(chosen)
        if real is not None:
            mixed = torch.zeros_like(tokens).masked_scatter(real.expand(x.shape[:2]).reshape(-1, 1), mixed)
        return mixed.view_as(x)

    def mix(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        logits = self.router(x).float()  # float32: small differences decide where a token goes
        weight, expert = logits.softmax(dim=-1).topk(self.cfg.active, dim=-1)  # (N, A)
        if self.cfg.normalize:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        if self.training:
            self.auxiliary = self.losses(logits, expert)
        out = torch.zeros_like(x)
        for index, layer in enumerate(self.experts):
            token, slot = self.admit((expert == index).nonzero(as_tuple=True), len(x))
            if len(token):
                out = out.index_add(0, token, layer(x[token]) * weight[token, slot, None].to(x.dtype))
        for layer in self.shared:
            out = out + layer(x)
        return out

    def admit(self, takers: tuple[Tensor, Tensor], N: int) -> tuple[Tensor, Tensor]:
        if self.cfg.capacity is None:
            return takers
        most = max(1, int(self.cfg.capacity * N * self.cfg.active / self.cfg.experts))
        return takers[0][:most], takers[1][:most]

    def losses(self, logits: Float[Tensor, "N E"], expert: Int[Tensor, "N A"]) -> Tensor:
        assigned = torch.bincount(expert.flatten(), minlength=self.cfg.experts)
        self.load = (assigned / assigned.sum().clamp(min=1)).detach()
        if not len(logits):
            return logits.sum()
        balance = self.cfg.experts * (self.load * logits.softmax(dim=-1).mean(dim=0)).sum()
        return self.cfg.balance * balance + self.cfg.router_z * logits.logsumexp(dim=-1).square().mean()


def auxiliary_loss(model: nn.Module) -> Tensor | float:
    """What the mixtures of the last training forward add to the loss, in units of one token's; 0 without mixtures."""
    parts = [m.auxiliary for m in model.modules() if isinstance(m, MixtureLayer) and m.auxiliary is not None]
    return torch.stack(parts).sum() if parts else 0.0
