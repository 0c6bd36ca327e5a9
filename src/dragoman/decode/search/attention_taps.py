"""Hearing where a decoder looks in its source, without changing what it says.

B rows, H heads, T target tokens, S source tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


def attention_taps(model: nn.Module) -> list[nn.Module]:
    """Where the attention weights of each decoder layer to the source can be heard, the first layer first."""
    return [module for name, module in model.named_modules() if name.endswith(".cross.weights")]


@contextmanager
def recording_attention(taps: Sequence[nn.Module], heard: list[Tensor]) -> Iterator[None]:
    """Adds to ``heard`` the weights (B, H, T, S) that each tap lets by, in the order they come; afterwards nothing
    listens any more."""

    def hear(_: nn.Module, __: object, weights: Tensor) -> None:
        heard.append(weights)

    hooks = [tap.register_forward_hook(hear) for tap in taps]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
