"""Linear recurrences with a matrix as their state, parallel over time: linear attention, mLSTM and their relatives.

    S_t = exp(log_decay_t) S_{t-1} + k_t v_t^T,        o_t = q_t S_t

Texts are divided into chunks of L tokens. Within a chunk all outputs come from one masked product of L x L; the states
between chunks come from one product over chunks. So nothing of size T x T is stored, nor a state for each token, and no
loop runs over tokens (Sun et al., arXiv:2307.08621, section 2.3; Dao & Gu, arXiv:2405.21060, section 6). Everything is
computed in float32 at least, whatever autocast says: decays are powers, and sums run over whole texts.

B batch, H heads, T tokens, N chunks of L tokens, C channels of queries and keys, V channels of values.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

CHUNK = 64
"""Tokens L of a chunk."""
SPAN = 64 * CHUNK
"""Tokens whose chunks are joined by one product; spans follow each other."""
LOG_ZERO = -1e4
"""Logarithm that stands for that of 0: its exponential is 0, and unlike with -inf differences are numbers."""
LOG_LEAST = -100.0
"""Logarithm of a decay that leaves nothing. Sums of decays are exact to a part of their size, which has to be small."""


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which products are computed in the type of their factors, whatever autocast says."""
    kind = x.device.type
    if kind not in ("cpu", "cuda") or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def widen(*tensors: Tensor) -> list[Tensor]:
    """Convert to float32, or leave what is wider."""
    return [x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors]


# ---- the recurrence ---------------------------------------------------------------------------------


def decayed_recurrence(
    q: Float[Tensor, "B H T C"],
    k: Float[Tensor, "B H T C"],
    v: Float[Tensor, "B H T V"],
    log_decay: Float[Tensor, "B H T"] | None = None,
    starts: Bool[Tensor, "#B T"] | None = None,
    state: Float[Tensor, "B H C V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H C V"]]:
    """Return the outputs of all tokens, and the state after the last.

    Args:
        q: queries; all tensors are float32 or wider.
        k: keys; zeros where a token is to leave the state as it is.
        v: values.
        log_decay: logarithm of each token's decay of the state, at most 0; None for no decay.
        starts: True on tokens before which the state is emptied; None where there are none.
        state: the state before the first token; None for zeros.
    """
    with full_precision(q):
        if q.shape[2] == 1:
            return _step(q, k, v, log_decay, starts, state)
        if torch.compiler.is_compiling() or q.shape[2] <= SPAN:  # a loop would fix the length of a program
            return _span(q, k, v, log_decay, starts, state)
        outputs = []
        for first in range(0, q.shape[2], SPAN):
            here = slice(first, first + SPAN)
            output, state = _span(
                q[:, :, here],
                k[:, :, here],
                v[:, :, here],
                None if log_decay is None else log_decay[:, :, here],
                None if starts is None else starts[:, here],
                state,
            )
            outputs.append(output)
        assert state is not None
        return torch.cat(outputs, dim=2), state


def _step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, starts: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute ``decayed_recurrence`` for one token."""
    if state is None:
        state = k.transpose(-1, -2) * v
    else:
        if log_decay is not None:
            state = state * log_decay.exp()[..., None]
        if starts is not None:
            state = state.masked_fill(starts[:, None, :, None], 0)
        state = torch.addcmul(state, k.transpose(-1, -2), v)
    return q @ state, state


def _span(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, starts: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute ``decayed_recurrence`` in chunks, all at once."""
    T, chunks = q.shape[2], Chunks.of(q.shape[2], log_decay, starts)
    q, k, v = (chunks.split(x) for x in (q, k, v))  # (B, H, N, L, C)
    within = chunks.decayed(q @ k.transpose(-1, -2)) @ v
    added = chunks.to_end(k).transpose(-1, -2) @ v  # (B, H, N, C, V): what each chunk adds to the state
    before = state[:, :, None] if state is not None else torch.zeros_like(added[:, :, :1])
    states = torch.cat([before, added], dim=2)
    states = (chunks.between(states) @ states.flatten(-2)).unflatten(-1, states.shape[-2:])  # (B, H, N + 1, C, V)
    outputs = within + chunks.from_start(q) @ states[:, :, :-1]
    return outputs.flatten(2, 3)[:, :, :T], states[:, :, -1]


class Chunks:
    """Decays and boundaries of texts in the tokens of a recurrence, divided into chunks."""

    def __init__(
        self,
        length: int,
        missing: int,
        decay: Float[Tensor, "B H N L"] | None,
        text: Int[Tensor, "#B N L"] | None,
    ):
        """
        Args:
            length: tokens L of a chunk.
            missing: tokens that the last chunk lacks.
            decay: sum of the logarithms of decays from the start of its chunk to each token, that token's included.
            text: number of texts that have begun in the chunk, up to each token.
        """
        self.length, self.missing, self.decay, self.text = length, missing, decay, text

    @classmethod
    def of(cls, tokens: int, log_decay: Tensor | None, starts: Tensor | None) -> "Chunks":
        # a program compiled for all lengths has chunks of one length
        length = CHUNK if torch.compiler.is_compiling() else min(CHUNK, tokens)
        missing = -tokens % length
        if log_decay is not None and starts is not None:
            log_decay = log_decay.masked_fill(starts[:, None], 0)  # of a state that is emptied, and may be anything
        if log_decay is not None:
            log_decay = F.pad(log_decay, (0, missing)).unflatten(-1, (-1, length)).cumsum(-1)
        if starts is not None:
            starts = F.pad(starts, (0, missing)).unflatten(-1, (-1, length)).cumsum(-1)
        return cls(length, missing, log_decay, starts)

    def split(self, x: Float[Tensor, "B H T *C"]) -> Float[Tensor, "B H N L *C"]:
        """Divide the tokens of ``x``; missing ones are zeros."""
        if self.missing:
            x = F.pad(x, (0, 0) * (x.ndim - 3) + (0, self.missing))
        return x.unflatten(2, (-1, self.length))

    def decayed(self, scores: Float[Tensor, "B H N L L"]) -> Float[Tensor, "B H N L L"]:
        """Multiply the score of each pair of tokens by the decay between them: 0 for later ones and other texts."""
        hidden = torch.ones(self.length, self.length, dtype=torch.bool, device=scores.device).triu(1)
        if self.text is not None:
            hidden = hidden | (self.text[..., :, None] != self.text[..., None, :])[:, None]
        if self.decay is None:
            return scores.masked_fill(hidden, 0)
        between = self.decay[..., :, None] - self.decay[..., None, :]
        return scores * between.masked_fill(hidden, float("-inf")).exp()

    def from_start(self, x: Float[Tensor, "B H N L C"]) -> Float[Tensor, "B H N L C"]:
        """Multiply each token by the decay since the start of its chunk: 0 where a text has begun since."""
        if self.decay is not None:
            x = x * self.decay.exp()[..., None]
        return x if self.text is None else x.masked_fill((self.text > 0)[:, None, ..., None], 0)

    def to_end(self, x: Float[Tensor, "B H N L C"]) -> Float[Tensor, "B H N L C"]:
        """Multiply each token by the decay up to the end of its chunk: 0 where another text begins before."""
        if self.decay is not None:
            x = x * (self.decay[..., -1:] - self.decay).exp()[..., None]
        return x if self.text is None else x.masked_fill((self.text < self.text[..., -1:])[:, None, ..., None], 0)

    def through(self) -> Float[Tensor, "B H N"] | None:
        """Return the decay of the state through each chunk: 0 where a text begins; None for no decay."""
        if self.decay is None and self.text is None:
            return None
        found = None if self.decay is None else self.decay[..., -1].exp()
        if self.text is None:
            return found
        kept = (self.text[..., -1] == 0)[:, None]
        return kept if found is None else found.masked_fill(~kept, 0)

    def between(self, states: Float[Tensor, "B H N1 C V"]) -> Float[Tensor, "#B #H N1 N1"]:
        """Return the decay from the end of each chunk to the end of each later one; the state before all of them
        counts as a chunk."""
        later = torch.ones(states.shape[2], states.shape[2], dtype=torch.bool, device=states.device).triu(1)
        if self.decay is None and self.text is None:
            return (~later).to(states.dtype)[None, None]
        total, hidden = states.new_zeros(()), later
        if self.decay is not None:
            ends = F.pad(self.decay[..., -1].cumsum(-1), (1, 0))
            total = ends[..., :, None] - ends[..., None, :]
        if self.text is not None:
            begun = F.pad((self.text[..., -1] > 0).cumsum(-1), (1, 0))
            hidden = later | (begun[..., :, None] != begun[..., None, :])[:, None]
        total = total.expand(torch.broadcast_shapes(total.shape, hidden.shape))
        return total.masked_fill(hidden, float("-inf")).exp()


# ---- exponential gates ------------------------------------------------------------------------------


def stabilize(
    log_input: Float[Tensor, "B H T"],
    log_forget: Float[Tensor, "B H T"] | None,
    starts: Bool[Tensor, "#B T"] | None,
    maximum: Float[Tensor, "B H"] | None,
    empty: float,
) -> tuple[Float[Tensor, "B H T"], Float[Tensor, "B H T"], Float[Tensor, "B H T"]]:
    """Keep exponential gates in the range of numbers (Beck et al., arXiv:2405.04517, equations 15 to 17).

    A state with the input gates exp(i_t) and the forget gates exp(f_t) is kept divided by exp(m_t), where

        m_t = max(f_t + m_{t-1}, i_t)

    A ratio of two such states does not depend on m, so its derivative is not computed either.

    Args:
        log_input: logarithm i of the input gates; ``LOG_ZERO`` for tokens that are not read.
        log_forget: logarithm f of the forget gates; None where nothing is forgotten.
        starts: True on tokens that begin a text; None where there are none.
        maximum: m before the first token; None at the start of a text.
        empty: m of the empty state.

    Returns:
        The factors of the keys exp(i_t - m_t), the logarithms of the state's decay f_t + m_{t-1} - m_t, and m.
    """
    with torch.no_grad():
        before = torch.full_like(log_input[..., 0], empty) if maximum is None else maximum
        m = _running_maximum(log_input, log_forget, starts, before, empty)
        earlier = torch.cat([before[..., None], m[..., :-1]], dim=-1)
        change = (earlier - m).clamp(min=LOG_LEAST)
    return (log_input - m).exp(), change if log_forget is None else log_forget + change, m


def _running_maximum(
    log_input: Tensor, log_forget: Tensor | None, starts: Tensor | None, before: Tensor, empty: float
) -> Tensor:
    """Return m of all tokens. Rounding does not matter: any m will do that keeps the gates in range."""
    forget = torch.zeros_like(log_input) if log_forget is None else log_forget
    if starts is None and log_input.shape[-1] == 1:
        return torch.maximum(forget + before[..., None], log_input)
    if starts is None:
        total = forget.cumsum(-1)
        highest = (log_input - total).cummax(-1).values
        return total + torch.maximum(highest, before[..., None])
    starts = starts[:, None]
    total = torch.where(starts, LOG_ZERO, forget).cumsum(-1)  # forgets all: maxima of earlier texts fall behind
    begun = torch.where(starts, torch.maximum(log_input, empty + forget), log_input)
    highest = (begun - total).cummax(-1).values
    return total + torch.maximum(highest, before[..., None])
