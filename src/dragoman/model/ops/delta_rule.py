"""The gated delta rule (Yang et al., arXiv:2412.06464, equation 10), parallel over time.

    S_t = exp(log_decay_t) (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,        o_t = q_t S_t

The state is a memory of values by keys: each token replaces a part beta of what the state returns for its key by its
value. In a chunk, the product of the transitions is 1 plus a sum over tokens (the WY form), which one triangular system
gives for all of them; a loop carries the state from chunk to chunk (section 3.3 and appendix A; Yang et al.,
arXiv:2406.06484, section 3).

B batch, H heads, T tokens, N chunks of L tokens, C channels of queries and keys, V channels of values.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dragoman.model.ops.chunked_recurrence import Chunks, full_precision


def gated_delta_rule(
    q: Float[Tensor, "B H T C"],
    k: Float[Tensor, "B H T C"],
    v: Float[Tensor, "B H T V"],
    log_decay: Float[Tensor, "B H T"],
    beta: Float[Tensor, "B H T"],
    starts: Bool[Tensor, "#B T"] | None = None,
    state: Float[Tensor, "B H C V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H C V"]]:
    """Return the outputs of all tokens, and the state after the last.

    Args:
        q: queries; all tensors are float32 or wider.
        k: keys of length 1.
        v: values.
        log_decay: logarithm of each token's decay of the state, at most 0.
        beta: part of the old value that is replaced, from 0 to 1; 0, without decay, where a token is not read.
        starts: True on tokens before which the state is emptied; None where there are none.
        state: the state before the first token; None for zeros.
    """
    if state is None:
        state = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])
    with full_precision(q):
        if q.shape[2] == 1:
            return _step(q, k, v, log_decay, beta, starts, state)
        return _chunked(q, k, v, log_decay, beta, starts, state)


def _step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, starts: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute ``gated_delta_rule`` for one token."""
    state = state * log_decay.exp()[..., None]
    if starts is not None:
        state = state.masked_fill(starts[:, None, :, None], 0)
    state = torch.addcmul(state, k.transpose(-1, -2), (v - k @ state) * beta[..., None])
    return q @ state, state


def _chunked(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, starts: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute ``gated_delta_rule`` chunk by chunk."""
    T, chunks = q.shape[2], Chunks.of(q.shape[2], log_decay, starts)
    q, k, v, beta = (chunks.split(x) for x in (q, k, v, beta))  # (B, H, N, L, C)
    weighted, towards = k * beta[..., None], k.transpose(-1, -2)
    # each token's correction u - w S, for the state S before the chunk
    system = chunks.decayed(weighted @ towards)  # its diagonal is not read: it counts as ones
    right = torch.cat([v * beta[..., None], chunks.from_start(weighted)], dim=-1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    u, w = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    within, read, write = chunks.decayed(q @ towards), chunks.from_start(q), chunks.to_end(k).transpose(-1, -2)
    through = chunks.through()
    assert through is not None
    outputs, parts = [], (u, w, within, read, write, through[..., None, None])
    # unbound once: the derivative of each index would be as large as all chunks
    for fresh, stale, near, reads, writes, kept in zip(*(part.unbind(2) for part in parts), strict=True):
        change = fresh - stale @ state
        outputs.append(reads @ state + near @ change)
        state = state * kept + writes @ change
    return torch.stack(outputs, dim=2).flatten(2, 3)[:, :, :T], state
