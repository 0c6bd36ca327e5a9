"""Muon (Jordan et al. 2024): a matrix moves along the orthogonal matrix that is nearest to its momentum.

``torch.optim.Muon`` takes one matrix after the other. A small model has many small ones, and the products of each are
too short to fill a core: together, in batches of one shape, they take six tenths of the time.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Coefficients of the polynomial of Jordan et al., which brings singular values near 1 in the fewest steps."""
TOGETHER = 2**22
"""Most numbers that are copied into one batch of matrices."""


class MuonOptimizer(torch.optim.Optimizer):
    """Muon with Nesterov momentum, and updates as large as AdamW's would be (Liu et al., arXiv:2502.16982, 2.2)."""

    def __init__(self, matrices: Iterable[nn.Parameter], *, weight_decay: float, momentum: float, iterations: int):
        super().__init__(
            matrices, {"lr": 1e-3, "weight_decay": weight_decay, "momentum": momentum, "iterations": iterations}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for alike in _alike(p for p in group["params"] if p.grad is not None):
                self._move(alike, group)

    def _move(self, matrices: list[nn.Parameter], group: dict[str, Any]) -> None:
        lr, momentum, ahead = group["lr"], group["momentum"], []
        for p in matrices:
            assert p.grad is not None, "chosen by it"
            mean = self._momentum(p).lerp_(p.grad, 1 - momentum)
            ahead.append(p.grad.lerp(mean, momentum))
        moves = orthogonalized(torch.stack(ahead), group["iterations"]).to(ahead[0].dtype)
        size = 0.2 * max(moves.shape[-2:]) ** 0.5  # the root mean square of AdamW's updates is about 0.2
        for p, move in zip(matrices, moves, strict=True):
            p.mul_(1 - lr * group["weight_decay"]).add_(move, alpha=-lr * size)

    def _momentum(self, p: nn.Parameter) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]


def orthogonalized(x: Float[Tensor, "N R C"], iterations: int) -> Float[Tensor, "N R C"]:
    """Return N matrices with the singular vectors of ``x`` and singular values near 1, in bfloat16 where the device
    multiplies it.

    Each iteration of Newton and Schulz applies an odd polynomial of degree five to the singular values.
    """
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).to(torch.bfloat16 if _multiplies_bfloat16(x.device) else torch.float32)
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value is above 1
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether products in bfloat16 are not left to plain loops, as on CPUs without AVX-512. By what the device
    is, never by what it measures: a resumed run must round alike."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _alike(matrices: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Divide matrices into batches of one shape, of at most ``TOGETHER`` numbers."""
    by_shape: dict[Any, list[nn.Parameter]] = defaultdict(list)
    for matrix in matrices:
        by_shape[matrix.shape, matrix.dtype, matrix.device].append(matrix)
    for same in by_shape.values():
        most = max(1, TOGETHER // same[0].numel())
        yield from (same[i : i + most] for i in range(0, len(same), most))
