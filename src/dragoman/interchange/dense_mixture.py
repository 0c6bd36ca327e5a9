"""Mixtures of experts for graphs: every expert computes, and those a token is not sent to count zero.

N tokens, E experts, A active ones, D width.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.moe import MixtureLayer


class DenseMixture(MixtureLayer):
    """The outputs of a mixture, without a choice that depends on the tokens."""

    def forward(self, x: Float[Tensor, "*B D"], real: Tensor | None = None) -> Float[Tensor, "*B D"]:
        _, probabilities, weight, expert = self.route(x)
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
    for part in model.modules():
        if isinstance(part, MixtureLayer):
            part.__class__ = DenseMixture  # the same tensors, computed in another way
    return model
