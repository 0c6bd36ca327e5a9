"""Initialization of weights. The last matrix of a sublayer is always called ``out``: depth scaling applies to it."""

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import Tensor, nn

from dragoman.config import OneOf, config


@config
class Xavier:
    """Uniform with variance 2 / (inputs + outputs), biases 0 (Glorot & Bengio 2010), as in the 2017 code."""

    depth_scaled: bool = False
    """Divide each sublayer's last matrix by sqrt(number of sublayers in its tower)."""

    def fill(self, weight: Tensor, dim: int) -> None:
        nn.init.xavier_uniform_(weight)


@config
class InverseSqrtWidth:
    """Normal with standard deviation 1 / sqrt(width)."""

    depth_scaled: bool = False
    """Divide each sublayer's last matrix by sqrt(number of sublayers in its tower)."""

    def fill(self, weight: Tensor, dim: int) -> None:
        nn.init.normal_(weight, std=dim**-0.5)


@config
class Gpt2Init:
    """Normal with standard deviation 0.02, each sublayer's last matrix smaller by sqrt(sublayers) (Radford 2019)."""

    std: float = 0.02
    depth_scaled: bool = True

    def fill(self, weight: Tensor, dim: int) -> None:
        nn.init.normal_(weight, std=self.std)


Init = Annotated[Xavier | InverseSqrtWidth | Gpt2Init, OneOf()]


class HasInitialValues(ABC):
    """Module with initial values of its own, such as the biases of gates: they are set after those of ``Init``."""

    @abstractmethod
    def set_initial_values(self) -> None:
        """Overwrite what ``initialize`` has set."""


def initialize(module: nn.Module, init: Init, dim: int) -> None:
    """Initialize every linear layer of ``module``; biases become 0, and norms keep ones."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            init.fill(part.weight, dim)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, HasInitialValues):
            part.set_initial_values()


@torch.no_grad()
def scale_outputs(block: nn.Module, init: Init, sublayers: int, gain: float) -> None:
    """Apply depth scaling and DeepNorm's gain to one block of a tower that has ``sublayers`` in total."""
    for name, part in block.named_modules():
        leaf = name.rpartition(".")[2]
        if not isinstance(part, nn.Linear):
            continue
        if leaf == "out" and init.depth_scaled:
            part.weight /= math.sqrt(sublayers)
        if leaf in ("out", "v", "up"):  # a gate is a switch: scaling it as well would scale the product twice
            part.weight *= gain


def initialize_embedding(weight: Tensor, init: Init, dim: int) -> None:
    """Initialize with standard deviation width^-0.5, so that tied logits start near variance 1; GPT-2 has its own."""
    nn.init.normal_(weight, std=init.std if isinstance(init, Gpt2Init) else dim**-0.5)
