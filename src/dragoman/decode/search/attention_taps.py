"""Record a decoder's attention to its source, without changing its output.

B rows, H heads, T target tokens, S source tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


def attention_taps(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose outputs are each decoder layer's attention weights to the source, first layer first."""
    return [module for name, module in model.named_modules() if name.endswith(".cross.weights")]


@contextmanager
def recording_attention(taps: Sequence[nn.Module], recorded: list[Tensor]) -> Iterator[None]:
    """Append to ``recorded`` the weights (B, H, T, S) of each tap, in the order of the forward pass.

    On exit the hooks are removed.
    """

    def record(_: nn.Module, __: object, weights: Tensor) -> None:
        recorded.append(weights)

    hooks = [tap.register_forward_hook(record) for tap in taps]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
