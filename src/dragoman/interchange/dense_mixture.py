"""Mixtures of experts for graphs: every expert computes, and those a token is not sent to count zero.

N tokens, E experts, A active ones, D width.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.moe import MixtureLayer


class DenseMixture(nn.Module):
    """The outputs of a mixture, without a choice that depends on the tokens."""

    def __init__(self, mixture: MixtureLayer):
        super().__init__()
        self.cfg, self.router = mixture.cfg, mixture.router
        self.experts, self.shared = mixture.experts, mixture.shared

    def forward(self, x: Float[Tensor, "*B D"], real: Tensor | None = None) -> Float[Tensor, "*B D"]:
        logits = self.router(x)
        probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=-1)
        weight, expert = probabilities.topk(self.cfg.active, dim=-1)  # (*B, A)
        if self.cfg.normalize:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        weights = torch.zeros_like(probabilities).scatter(-1, expert, weight)  # (*B, E)
        outputs = torch.stack([layer(x) for layer in self.experts], dim=-1)  # (*B, D, E)
        out = (outputs * weights[..., None, :]).sum(dim=-1)
        for layer in self.shared:
            out = out + layer(x)
        return out.to(x.dtype)


def with_dense_mixtures(model: nn.Module) -> nn.Module:
    """Return a copy whose mixtures compute all experts; the model itself where it has none."""
    if not any(isinstance(part, MixtureLayer) for part in model.modules()):
        return model
    model = copy.deepcopy(model)
    for part in list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, MixtureLayer):
                setattr(part, name, DenseMixture(child))
    return model
