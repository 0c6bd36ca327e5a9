"""Learning rates that differ between parts of a model, as factors on the schedule's rate: discriminative
fine-tuning."""

from collections import defaultdict
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat
from torch import nn

from dragoman.config import OneOf, config
from dragoman.model.inputs import InputLayer
from dragoman.model.layer_stack import LayerStack
from dragoman.model.names import check_patterns, matches
from dragoman.train.optimize import CombinedOptimizer

RateFactors = dict[nn.Parameter, float]
"""Factor on the schedule's learning rate by parameter; 1 for a parameter that is not in it."""


@config
class Uniform:
    """One learning rate for all weights."""

    def shares(self, model: nn.Module) -> RateFactors:
        return {}


@config
class ByName:
    """Learning rates by weight name, such as ``{"embed.*": 0.1, "decoder.blocks.0.*": 0.3}``."""

    factors: dict[str, PositiveFloat]
    """Pattern of weight names, with * for any text -> factor on the schedule's rate. The first pattern that matches
    counts."""

    def shares(self, model: nn.Module) -> RateFactors:
        """Return the factor of each parameter.

        Raises:
            ConfigError: a pattern matches no weight.
        """
        parameters = dict(model.named_parameters(remove_duplicate=False))
        check_patterns(self.factors, parameters, where="train.rates")
        shares: RateFactors = {}
        for pattern, factor in self.factors.items():
            for name, parameter in parameters.items():
                if matches(name, [pattern]):
                    shares.setdefault(parameter, factor)
        return shares


@config
class Layerwise:
    """Slower rates nearer to the input: layer i of N learns at decay^(N - 1 - i) of the rate, embeddings at decay^N
    (Howard & Ruder, arXiv:1801.06146; in the form of Clark et al., arXiv:2003.10555)."""

    decay: Annotated[float, Field(gt=0, le=1)]

    def shares(self, model: nn.Module) -> RateFactors:
        towers = [module for module in model.modules() if isinstance(module, LayerStack)]
        deepest = max((len(tower.blocks) for tower in towers), default=0)
        readers = [module for module in model.modules() if isinstance(module, InputLayer)]
        found = {p: self.decay**deepest for reader in readers for p in reader.parameters()}
        for tower in towers:
            for i, block in enumerate(tower.blocks):
                found |= dict.fromkeys(block.parameters(), self.decay ** (len(tower.blocks) - 1 - i))
        return found


Rates = Annotated[Uniform | ByName | Layerwise, OneOf(usual="by_name")]


def apply_rate_factors(optimizer: torch.optim.Optimizer, shares: RateFactors) -> None:
    """Split the parameter groups so that each has one factor, its ``share``, by which the loop multiplies the rate."""
    if isinstance(optimizer, CombinedOptimizer):
        for one in optimizer.parts:
            apply_rate_factors(one, shares)
        optimizer.collect()
        return
    optimizer.param_groups[:] = [part for group in optimizer.param_groups for part in _cut(group, shares)]


def _cut(group: dict[str, Any], shares: RateFactors) -> list[dict[str, Any]]:
    parts: dict[float, list[nn.Parameter]] = defaultdict(list)
    for parameter in group["params"]:
        parts[shares.get(parameter, 1.0)].append(parameter)
    return [group | {"params": parameters, "share": share} for share, parameters in parts.items()]
