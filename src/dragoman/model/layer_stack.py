"""Base of all stacks of layers, whatever the layers are: what training needs to know of one."""

from collections.abc import Sequence
from typing import Any

from torch import nn


class LayerStack(nn.Module):
    """Layers, one after the other."""

    blocks: Sequence[Any]
    """The layers, the first one nearest to the input."""
    recompute: bool = False
    """Activation checkpointing: keep only each layer's input for the backward pass and compute the rest again."""
