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
    """Configuration of a mixture of experts."""

    experts: PositiveInt
    """Number of experts E."""
    active: PositiveInt = 2
    """Number of experts A that each token is sent to."""
    expert: Expert
    shared: NonNegativeInt = 0
    """Number of further experts that every token is sent to (DeepSeekMoE, arXiv:2401.06066)."""
    normalize: bool = True
    """Scale the weights of the active experts to sum to 1, as Mixtral does."""
    capacity: PositiveFloat | None = None
    """Capacity factor: in training, each expert takes at most this many times its even load, and drops later tokens
    (Switch). None drops no token. Inference never drops one: an output must not depend on the rest of the batch."""
    balance: NonNegativeFloat = 0.01
    """Weight of the load-balancing loss, which is 1 when all experts get the same load (arXiv:2101.03961, eq. 4)."""
    router_z: NonNegativeFloat = 0.0
    """Weight of the squared log-sum-exp of the router's logits, which keeps them small (ST-MoE, arXiv:2202.08906)."""

    def build(self, dim: int) -> nn.Module:
        if self.active > self.experts:
            raise ConfigError(f"active: {self.active} active experts of {self.experts}; choose between 1 and all")
        return MixtureLayer(self, dim)


class MixtureLayer(nn.Module):
    """Router and experts."""

    auxiliary: Tensor | None = None
    """Weighted balance and router losses of the last training forward, averaged over tokens; None after inference."""
    load: Float[Tensor, " E"] | None = None
    """Fraction of the last forward's (token, expert) assignments that each expert got."""

    def __init__(self, cfg: Mixture, dim: int):
        super().__init__()
        self.cfg = cfg
        self.router = Linear(dim, cfg.experts, bias=False)
        self.experts = nn.ModuleList(cfg.expert.build(dim) for _ in range(cfg.experts))
        self.shared = nn.ModuleList(cfg.expert.build(dim) for _ in range(cfg.shared))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"auxiliary": None}  # a loss is no part of a copy, and its graph cannot be copied

    @property
    def idle_parameters(self) -> int:
        """Number of parameters that a token does not pass: those of the experts that it is not sent to."""
        each = sum(p.numel() for p in self.experts[0].parameters())
        return (self.cfg.experts - self.cfg.active) * each

    def forward(self, x: Float[Tensor, "*B D"], real: Bool[Tensor, "*B"] | None = None) -> Float[Tensor, "*B D"]:
        """Send each token to its experts; ``real`` is False on padding, which is skipped and counts in no loss."""
        if real is None or x.is_meta:
            return self.mix(x.flatten(0, -2)).view_as(x)
        real = real.expand(x.shape[:-1])
        mixed = self.mix(x[real])
        return mixed.new_zeros(x.shape).masked_scatter(real[..., None], mixed)

    def mix(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return the weighted sum of each token's experts; record ``load`` and ``auxiliary``."""
        logits, probabilities, weight, expert = self.route(x)
        counts = self.count(expert)
        load = torch.tensor(counts, dtype=probabilities.dtype, device=probabilities.device) / max(expert.numel(), 1)
        self.load, self.auxiliary = load, self.losses(logits, probabilities, load) if self.training else None
        order = expert.flatten().argsort(stable=True)  # grouped by expert, each group in text order
        out = torch.zeros_like(x, dtype=probabilities.dtype)  # outputs of several experts are summed in float32
        for layer, takers in zip(self.experts, order.split(counts), strict=True):
            takers = self.within_capacity(takers, len(x))
            token, slot = takers // self.cfg.active, takers % self.cfg.active
            if len(token):
                out = out.index_add(0, token, (layer(x[token]) * weight[token, slot, None]).to(out.dtype))
        for layer in self.shared:
            out = out + layer(x)
        return out.to(x.dtype)

    def route(self, x: Float[Tensor, "*B D"]) -> tuple[Tensor, Tensor, Float[Tensor, "*B A"], Int[Tensor, "*B A"]]:
        """Return the router's logits and probabilities of all experts (*B, E), and each token's experts and weights."""
        logits = self.router(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # small differences decide the routing
        probabilities = logits.softmax(dim=-1)
        weight, expert = probabilities.topk(self.cfg.active, dim=-1)
        if self.cfg.normalize:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        return logits, probabilities, weight, expert

    def count(self, expert: Int[Tensor, "N A"]) -> list[int]:
        """Count the tokens sent to each expert; on the meta device, assume an even load."""
        E, n = self.cfg.experts, expert.numel()
        if expert.is_meta:
            return [n // E + (i < n % E) for i in range(E)]
        return torch.bincount(expert.flatten(), minlength=E).tolist()

    def within_capacity(self, takers: Int[Tensor, " M"], N: int) -> Int[Tensor, " taken"]:
        """Return the first of an expert's assignments, as many as its capacity allows."""
        if self.cfg.capacity is None or not self.training:
            return takers
        return takers[: max(1, int(self.cfg.capacity * N * self.cfg.active / self.cfg.experts))]

    def losses(
        self, logits: Float[Tensor, "N E"], probabilities: Float[Tensor, "N E"], load: Float[Tensor, " E"]
    ) -> Float[Tensor, ""]:
        """Return the weighted sum of the load-balancing loss and the router's z-loss."""
        if not len(logits):
            return logits.sum()
        balance = self.cfg.experts * (load * probabilities.mean(dim=0)).sum()
        return self.cfg.balance * balance + self.cfg.router_z * logits.logsumexp(dim=-1).square().mean()


def auxiliary_loss(model: nn.Module) -> Tensor | float:
    """Return the sum of the mixtures' auxiliary losses in the last training forward, per token; 0 without mixtures."""
    parts = [m.auxiliary for m in model.modules() if isinstance(m, MixtureLayer) and m.auxiliary is not None]
    return torch.stack(parts).sum() if parts else 0.0
