"""Gates of recurrent cells in a loop over steps, with derivatives written out: a third of autograd's calls.

Inputs may be bfloat16; states and what is computed of them are float32 at least.

B rows, H channels of the state.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def vanilla(by_input: Tensor, by_state: Tensor, activation: str) -> Float[Tensor, "B H"]:
    """Return tanh or relu of the sum of both products."""
    total = _wide(by_input + by_state)
    return total.tanh() if activation == "tanh" else total.relu()


class LstmGates(torch.autograd.Function):
    """From both products (B, 4 H), in the order i, f, g, o, and the cell (B, H) to the new output and cell.

    c' = f c + i g;  h' = o tanh(c')
    """

    @staticmethod
    def forward(ctx: Any, by_input: Tensor, by_state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        total, H = _wide(by_input + by_state), cell.shape[1]
        total[:, : 2 * H].sigmoid_()
        total[:, 2 * H : 3 * H].tanh_()
        total[:, 3 * H :].sigmoid_()
        i, f, g, o = total.chunk(4, dim=1)
        new = torch.addcmul(f * cell, i, g)
        squashed = new.tanh()
        ctx.save_for_backward(total, cell, squashed)
        ctx.dtypes = by_input.dtype, by_state.dtype
        return o * squashed, new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor, by_new: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total, cell, squashed = ctx.saved_tensors
        H, (i, f, g, o) = cell.shape[1], total.chunk(4, dim=1)
        through = torch.addcmul(by_new, by_output * o, 1 - squashed * squashed)
        slope = total * (1 - total)  # of the sigmoid; of tanh below
        slope[:, 2 * H : 3 * H] = 1 - g * g
        slope[:, :H] *= through * g
        slope[:, H : 2 * H] *= through * cell
        slope[:, 2 * H : 3 * H] *= through * i
        slope[:, 3 * H :] *= by_output * squashed
        return slope.to(ctx.dtypes[0]), slope.to(ctx.dtypes[1]), through * f


class GruGates(torch.autograd.Function):
    """From both products (B, 3 H), in the order r, z, n, and the state (B, H) to the new state.

    n = tanh(n_input + r n_state);  h' = (1 - z) n + z h
    """

    @staticmethod
    def forward(ctx: Any, by_input: Tensor, by_state: Tensor, state: Tensor) -> Tensor:
        H = state.shape[1]
        given, candidate = _wide(by_input), _wide(by_state)
        both = (given[:, : 2 * H] + candidate[:, : 2 * H]).sigmoid_()
        r, z = both.chunk(2, dim=1)
        candidate = candidate[:, 2 * H :]
        n = torch.addcmul(given[:, 2 * H :], r, candidate).tanh_()
        ctx.save_for_backward(both, n, candidate, state)
        ctx.dtypes = by_input.dtype, by_state.dtype
        return torch.addcmul(n, z, state - n)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        both, n, candidate, state = ctx.saved_tensors
        r, z = both.chunk(2, dim=1)
        for_state = upstream * z
        for_n = (upstream - for_state) * (1 - n * n)
        for_both = both * (1 - both) * torch.cat([for_n * candidate, upstream * (state - n)], dim=1)
        by_input = torch.cat([for_both, for_n], dim=1).to(ctx.dtypes[0])
        by_state = torch.cat([for_both, for_n * r], dim=1).to(ctx.dtypes[1])
        return by_input, by_state, for_state


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
