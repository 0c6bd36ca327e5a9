"""Mixture of experts: a router sends each token to a few of many feed-forwards (Shazeer et al., arXiv:1701.06538).

N tokens, D width, E experts, A active experts per token, M of the N A choices.
"""

from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.linear import Linear
from dragoman.model.mlp import FeedForward, Gated

Expert = Annotated[FeedForward | Gated, OneOf()]


@config
class Mixture:
    experts: PositiveInt
    """Experts E."""
    active: PositiveInt = 2
    """Experts A that each token goes to."""
    expert: Expert
    shared: NonNegativeInt = 0
    """Further experts that every token goes to (DeepSeekMoE, arXiv:2401.06066)."""
    normalize: bool = True
    """Scale the weights of the chosen experts to sum 1, as Mixtral does."""
    capacity: PositiveFloat | None = None
    """While training each expert takes at most this many times its even share, and later tokens lose it (Switch); None
    drops no token. Otherwise none is dropped: an answer must not depend on what else is in the batch."""
    balance: NonNegativeFloat = 0.01
    """Weight of the load-balancing loss, which is 1 when all experts get their even share (arXiv:2101.03961, eq. 4)."""
    router_z: NonNegativeFloat = 0.0
    """Weight of the squared log-sum-exp of the router's logits, which keeps them small (ST-MoE, arXiv:2202.08906)."""

    def build(self, dim: int) -> nn.Module:
        if self.active > self.experts:
            raise ConfigError(f"active: {self.active} active experts of {self.experts}; choose between 1 and all")
        return MixtureLayer(self, dim)


class MixtureLayer(nn.Module):
    auxiliary: Tensor | None = None
    """Weighted balance and router losses of the last forward, a mean over its tokens; None if that was no training."""
    load: Float[Tensor, " E"] | None = None
    """Share of its (token, expert) assignments that each expert got."""

    def __init__(self, cfg: Mixture, dim: int):
        super().__init__()
        self.cfg = cfg
        self.router = Linear(dim, cfg.experts, bias=False)
        self.experts = nn.ModuleList(cfg.expert.build(dim) for _ in range(cfg.experts))
        self.shared = nn.ModuleList(cfg.expert.build(dim) for _ in range(cfg.shared))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"auxiliary": None}  # a loss is no part of a copy, and its graph cannot be copied

    def forward(self, x: Float[Tensor, "*B D"], real: Bool[Tensor, "*B"] | None = None) -> Float[Tensor, "*B D"]:
        """``real`` is False on padding, which goes to no expert and counts in no loss."""
        if real is None or x.is_meta:
            return self.mix(x.flatten(0, -2)).view_as(x)
        real = real.expand(x.shape[:-1])
        mixed = self.mix(x[real])
        return mixed.new_zeros(x.shape).masked_scatter(real[..., None], mixed)

    def mix(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        logits = self.router(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # small differences decide who goes where
        share = logits.softmax(dim=-1)
        weight, expert = share.topk(self.cfg.active, dim=-1)  # (N, A)
        if self.cfg.normalize:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        counts = self.count(expert)
        load = torch.tensor(counts, dtype=share.dtype, device=share.device) / max(expert.numel(), 1)
        self.load, self.auxiliary = load, self.losses(logits, share, load) if self.training else None
        order = expert.flatten().argsort(stable=True)  # those of the first expert, in the order of the text, and so on
        out = torch.zeros_like(x, dtype=share.dtype)  # several experts' answers are summed in float32
        for layer, takers in zip(self.experts, order.split(counts), strict=True):
            takers = self.admit(takers, len(x))
            token, slot = takers // self.cfg.active, takers % self.cfg.active
            if len(token):
                out = out.index_add(0, token, (layer(x[token]) * weight[token, slot, None]).to(out.dtype))
        for layer in self.shared:
            out = out + layer(x)
        return out.to(x.dtype)

    def count(self, expert: Int[Tensor, "N A"]) -> list[int]:
        """Tokens that chose each expert; where there are shapes only, as many for each."""
        E, n = self.cfg.experts, expert.numel()
        if expert.is_meta:
            return [n // E + (i < n % E) for i in range(E)]
        return torch.bincount(expert.flatten(), minlength=E).tolist()

    def admit(self, takers: Int[Tensor, " M"], N: int) -> Int[Tensor, " taken"]:
        """Of the choices that fell on an expert those it takes."""
        if self.cfg.capacity is None or not self.training:
            return takers
        return takers[: max(1, int(self.cfg.capacity * N * self.cfg.active / self.cfg.experts))]

    def losses(
        self, logits: Float[Tensor, "N E"], share: Float[Tensor, "N E"], load: Float[Tensor, " E"]
    ) -> Float[Tensor, ""]:
        if not len(logits):
            return logits.sum()
        balance = self.cfg.experts * (load * share.mean(dim=0)).sum()
        return self.cfg.balance * balance + self.cfg.router_z * logits.logsumexp(dim=-1).square().mean()


def auxiliary_loss(model: nn.Module) -> Tensor | float:
    """What the mixtures of the last training forward add to the loss, in units of one token's; 0 without mixtures."""
    parts = [m.auxiliary for m in model.modules() if isinstance(m, MixtureLayer) and m.auxiliary is not None]
    return torch.stack(parts).sum() if parts else 0.0
