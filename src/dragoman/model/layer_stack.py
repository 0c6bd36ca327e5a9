"""Base of all stacks of layers, whatever the layers are: what training needs to know of one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from dragoman.model.init import Init


class LayerStack(nn.Module):
    """Layers, one after the other."""

    blocks: Sequence[Any]
    """The layers, the first one nearest to the input."""
    recompute: bool = False
    """Activation checkpointing: keep only each layer's input for the backward pass and compute the rest again."""

    def run_block(self, block: nn.Module, *arguments: Any) -> Any:
        """Call one of the layers, with activation checkpointing if ``recompute`` is set, in training."""
        if self.recompute and self.training:
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)


class StackConfig(ABC):
    """Configuration of a stack that an encoder model may have between its inputs and its head."""

    @property
    def longest(self) -> int | None:
        """Longest text in tokens; None for no limit."""
        return None

    @abstractmethod
    def build_tower(self, dim: int, inputs: object, init: Init) -> LayerStack:
        """Build the tower of an encoder model that reads ``inputs``.

        Raises:
            ConfigError: sizes or parts that do not fit; the message opens with the field.
        """
