"""The selective scan of Mamba (Gu & Dao, arXiv:2312.00752, algorithm 2), parallel over time in bounded memory.

    h_t = exp(step_t a) h_{t-1} + step_t b_t x_t        y_t = c_t h_t

Every channel has N states, each with a decay of its own that depends on the token, so no product of matrices computes
it. The tokens are divided into blocks whose states fit in the cache, and each block into groups: the steps of all
groups run at once, then the state is carried from group to group. For the gradient, the states at the beginning of each
block are kept and the others computed again, so that a tensor of T x N x E exists only for one block.

B rows, T tokens, E channels, N states of a channel, K groups of L tokens.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.model.ops import native_scan
from dragoman.model.ops.observed import note_recurrence

BLOCK = 1 << 22
"""Most numbers in a tensor of a block's states."""
SHORTEST = 16
"""Fewest tokens of a block: shorter ones would be a loop over tokens."""


def selective_scan(
    x: Float[Tensor, "B T E"],
    step: Float[Tensor, "B T E"],
    a: Float[Tensor, "N E"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    first: Float[Tensor, "B N E"] | None = None,
    starts: Bool[Tensor, "#B T"] | None = None,
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B N E"]]:
    """Return the outputs y and the state after the last token.

    Args:
        x: inputs.
        step: step sizes, 0 for tokens that leave the state as it is.
        a: negative rates of the decay.
        b: weights of the input in each state.
        c: weights of each state in the output.
        first: the state before the first token; None: zeros.
        starts: True on tokens before which the state is emptied.
    """
    if native_scan.supports_scan(x, step, a, b, c, first, starts):
        return native_scan.NativeScanFunction.apply(x, step, a, b, c, first, starts)
    if x.shape[1] == 1:
        return _one_step(x, step, a, b, c, first, starts)
    if first is None:
        first = x.new_zeros(x.shape[0], *a.shape)
    if torch.compiler.is_compiling():
        y, last, _ = _traced(x, step, a, b, c, first, starts)
        return y, last
    return SelectiveScanFunction.apply(x, step, a, b, c, first, starts)


def _one_step(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor | None, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute a single token: the form of decoding."""
    state = (step * x) * b.transpose(1, 2)  # (B, 1, E) (B, N, 1)
    if first is not None:
        decay = (step * a).exp()
        state = torch.addcmul(state, first, decay if starts is None else decay.masked_fill(starts[..., None], 0))
    return c @ state, state


class SelectiveScanFunction(torch.autograd.Function):
    """The scan with its derivative."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor, starts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        y, last, begins = scan_forward(x, step, a, b, c, first, starts)
        ctx.save_for_backward(x, step, a, b, c, begins, starts)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor, by_last: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return *scan_backward(by_y, by_last, *ctx.saved_tensors), None


# ---- blocks -----------------------------------------------------------------------------------------


def scan_forward(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor, starts: Tensor | None
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B N E"], Float[Tensor, "blocks B N E"]]:
    """Return outputs, last state, and the state at the beginning of each block."""
    outputs, begins, state = [], [], first
    for block in _blocks(x, a):
        begins.append(state)
        states = _states(*_terms(x[:, block], step[:, block], a, b[:, block], starts, block), state)
        outputs.append(torch.einsum("btn,btne->bte", c[:, block], states))
        state = states[:, -1]
    return torch.cat(outputs, dim=1), state.clone(), torch.stack(begins)


def scan_backward(
    by_y: Tensor,
    by_last: Tensor,
    x: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    begins: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients by x, step, a, b, c and the first state."""
    by_x, by_step, by_b, by_c = (torch.empty_like(t) for t in (x, step, b, c))
    by_a, carried = torch.zeros_like(a), by_last
    for block, state in reversed(list(zip(_blocks(x, a), begins, strict=True))):
        inner, size, up = x[:, block], step[:, block], by_y[:, block]
        decay, added = _terms(inner, size, a, b[:, block], starts, block)
        states = _states(decay.clone(), added.clone(), state)
        by_c[:, block] = torch.einsum("btne,bte->btn", states, up)
        by_state = c[:, block, :, None] * up[:, :, None]
        by_state[:, -1] += carried
        backwards = F.pad(decay[:, 1:].flip(1), (0, 0, 0, 0, 1, 0))
        by_state = _states(backwards, by_state.flip(1), torch.zeros_like(state)).flip(1)
        carried = decay[:, 0] * by_state[:, 0]
        by_b[:, block] = torch.einsum("btne,bte->btn", by_state, size * inner)
        by_input = torch.einsum("btne,btn->bte", by_state, b[:, block])
        by_rate = by_state.mul_(states.sub_(added))  # by step_t a: decay_t h_{t-1} is h_t less what was added
        by_x[:, block] = size * by_input
        by_step[:, block] = inner * by_input + torch.einsum("btne,ne->bte", by_rate, a)
        by_a += torch.einsum("btne,bte->ne", by_rate, size)
    return by_x, by_step, by_a, by_b, by_c, carried


def _blocks(x: Tensor, a: Tensor) -> list[slice]:
    length = max(SHORTEST, BLOCK // max(1, len(x) * a.numel()))
    return [slice(i, i + length) for i in range(0, x.shape[1], length)]


def _terms(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, starts: Tensor | None, block: slice
) -> tuple[Float[Tensor, "B T N E"], Float[Tensor, "B T N E"]]:
    """Return what a token's last state is multiplied by, and what is added to it."""
    decay = (step[:, :, None] * a).exp_()
    if starts is not None:
        decay.masked_fill_(starts[:, block, None, None], 0)
    return decay, (step * x)[:, :, None] * b[..., None]


def _states(
    decay: Float[Tensor, "B T N E"], added: Float[Tensor, "B T N E"], first: Float[Tensor, "B N E"]
) -> Float[Tensor, "B T N E"]:
    """Return h_t = decay_t h_{t-1} + added_t for every t. Both arguments are overwritten."""
    note_recurrence(added)
    T = decay.shape[1]
    L = math.isqrt(T - 1) + 1
    behind = (0, 0, 0, 0, 0, -T % L)
    rates, h = (F.pad(t, behind, value=1.0).unflatten(1, (-1, L)) for t in (decay, added))
    for i in range(1, L):  # each group as if it began with an empty state, and the product of its decays so far
        h[:, :, i].addcmul_(rates[:, :, i], h[:, :, i - 1])
        rates[:, :, i] *= rates[:, :, i - 1]
    state = first
    for group in range(h.shape[1]):
        h[:, group].addcmul_(rates[:, group], state[:, None])
        state = h[:, group, -1]
    return h.flatten(1, 2)[:, :T]


# ---- for compilers ----------------------------------------------------------------------------------
# Blocks depend on sizes that a program is not made for, so that a program holds the scan as one operation.


@torch.library.custom_op("dragoman::selective_scan", mutates_args=())
def _traced(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor, starts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return scan_forward(x, step, a, b, c, first, starts)


@_traced.register_fake
def _(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor, starts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    blocks = torch.library.get_ctx().new_dynamic_size()
    return torch.empty_like(x), torch.empty_like(first), first.new_empty(blocks, *first.shape)


@torch.library.custom_op("dragoman::selective_scan_gradient", mutates_args=())
def _traced_gradient(
    by_y: Tensor,
    by_last: Tensor,
    x: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    begins: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    found = scan_backward(by_y, by_last, x, step, a, b, c, begins, starts)
    return *found[:-1], found[-1].clone()  # which may be the argument itself


@_traced_gradient.register_fake
def _(
    by_y: Tensor,
    by_last: Tensor,
    x: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    begins: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(t) for t in (x, step, a, b, c, by_last))  # pyright: ignore[reportReturnType]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, step, a, b, c, _, starts = inputs
    ctx.save_for_backward(x, step, a, b, c, output[2], starts)


def _go_back(ctx: Any, by_y: Tensor, by_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_traced_gradient(by_y, by_last, *ctx.saved_tensors), None


_traced.register_autograd(_go_back, setup_context=_keep)
