"""Low-rank adapters (LoRA): train the change of a matrix as the product of two small ones (Hu et al.,
arXiv:2106.09685).

    y = x W^T + scale dropout(x) A^T B^T        W is frozen, A (R x K) starts at random, B (N x R) at zero

They replace linear layers of a built model, whose code is unaware of them. Folded in, W + scale B A, they disappear.

K inputs, N outputs, R rank of one layer.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.convolution.weights import WeightNormLinear
from dragoman.model.dropout import Dropout, DropoutRate
from dragoman.model.interface import SequenceModel
from dragoman.model.linear import Linear, plain
from dragoman.model.names import check_patterns, matches

DOWN, UP = "lora_down", "lora_up"
"""Parameter names of A and B beside ``weight``."""

Scaling = Literal["lora", "rslora"]

#                                    of alpha and the rank
_SCALES: dict[Scaling, Callable[[float, int], float]] = {
    "lora": lambda alpha, rank: alpha / rank,  # Hu et al. 2021, section 4.1
    "rslora": lambda alpha, rank: alpha / math.sqrt(rank),  # Kalajdzievski, arXiv:2312.03732
}


@config
class Lora:
    """Configuration of low-rank adapters."""

    rank: PositiveInt = 8
    """Rank R of each adapter."""
    alpha: PositiveFloat = 16.0
    """Numerator of the scale: changes are multiplied by alpha / rank, so that another rank needs no other learning
    rate."""
    scaling: Scaling = "lora"
    """Rule of the scale. rslora: alpha / sqrt(rank), which lets large ranks learn as fast as small ones."""
    dropout: DropoutRate = 0.0
    """Dropout on the input of an adapter."""
    targets: tuple[str, ...] = ("*.q", "*.v")
    """Names of linear layers to adapt, with * for any text: queries and values as in the paper, * for all."""
    whole: tuple[str, ...] = ()
    """Names of weights trained in full beside the adapters, such as embed.*; newly initialized ones always are."""

    @property
    def scale(self) -> float:
        return _SCALES[self.scaling](self.alpha, self.rank)

    def target_layers(self, model: nn.Module) -> dict[str, nn.Linear]:
        """Return the layers of ``model`` that ``targets`` match, by name.

        Raises:
            ConfigError: a name that no such layer has, or a rank larger than a layer's matrix.
        """
        layers = adaptable(model)
        for name, layer in model.named_modules():
            if isinstance(layer, WeightNormLinear) and matches(name, self.targets):
                raise ConfigError(
                    f"start_from.lora.targets: {name} has normalized weights (weight_norm), to which nothing of low "
                    "rank can be added: name other layers, or train it in full with start_from.lora.whole"
                )
        check_patterns(self.targets, layers, where="start_from.lora.targets", what="linear layer")
        found = {name: layer for name, layer in layers.items() if matches(name, self.targets)}
        for name, layer in found.items():
            if self.rank > (most := min(layer.weight.shape)):
                size = " x ".join(map(str, layer.weight.shape))
                raise ConfigError(f"start_from.lora.rank: {self.rank} for {name}, which is {size}: at most {most}")
        return found

    def adapt(self, model: nn.Module, also: tuple[str, ...] = ()) -> None:
        """Put adapters around the ``targets`` of ``model`` and freeze all else except ``whole`` and ``also``.

        Raises:
            ConfigError: see ``chosen``; a name in ``whole`` that no weight has.
        """
        chosen = self.target_layers(model)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        check_patterns(self.whole, parameters, where="start_from.lora.whole")
        whole = {p for name, p in parameters.items() if matches(name, (*self.whole, *also))}
        for parameter in model.parameters():
            parameter.requires_grad_(parameter in whole)
        for name, layer in chosen.items():
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, Adapted(layer, self))


class Adapted(Linear):
    """Linear layer with its own weight and bias and a low-rank adapter."""

    def __init__(self, layer: nn.Linear, cfg: Lora):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.product = layer.product if isinstance(layer, Linear) else plain
        self.scale, self.dropout = cfg.scale, Dropout(cfg.dropout)
        self.lora_down = nn.Parameter(layer.weight.new_empty(cfg.rank, layer.in_features))
        self.lora_up = nn.Parameter(layer.weight.new_zeros(layer.out_features, cfg.rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))  # as the authors' code has it
        self.train(layer.training)

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        change = self.product(self.product(self.dropout(x), self.lora_down, None), self.lora_up, None)
        return super().forward(x) + self.scale * change


def adaptable(model: nn.Module) -> dict[str, nn.Linear]:
    """Return linear layers by name, except those with normalized weights, and those whose matrix is used elsewhere:
    the output layer, which the loss multiplies by, those tied to an embedding, and those that layers share."""
    tables = (nn.Embedding, nn.Linear)
    outputs = {module.output for module in model.modules() if isinstance(module, SequenceModel)}
    uses = Counter(id(module.weight) for module in model.modules() if isinstance(module, tables))
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, WeightNormLinear)
        if module not in outputs and uses[id(module.weight)] == 1
    }


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that a checkpoint must hold: all of them, or with adapters only the trainable ones."""
    weights = model.state_dict()
    if not any(isinstance(module, Adapted) for module in model.modules()):
        return weights
    learning = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    return {name: value for name, value in weights.items() if name in learning}


def fold(weights: Mapping[str, Tensor], cfg: Lora) -> dict[str, Tensor]:
    """Return the weights of an equivalent model without adapters: W + scale B A, in float32 at least."""
    folded = {name: value for name, value in weights.items() if name.rpartition(".")[2] not in (DOWN, UP)}
    for name, down in weights.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == DOWN:
            weight, up = folded[f"{layer}.weight"], weights[f"{layer}.{UP}"]
            exact = torch.promote_types(torch.promote_types(weight.dtype, up.dtype), torch.float32)
            folded[f"{layer}.weight"] = weight.to(exact) + cfg.scale * (up.to(exact) @ down.to(exact))
    return folded
