"""A step of beam search by our C kernel (``native/beam.c``): one call instead of some forty small operations.

For a small model these operations cost more than the model does. The slow twin is ``BeamStrategy.step``.

N sentences, W hypotheses of each before the step, K after it, R rows, V vocabulary, E hypotheses that ended.
"""

import ctypes
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.decode.search.backpointers import ContinuedRows, EndedHypotheses
from dragoman.decode.search.strategy import Choice
from dragoman.native.library import library
from dragoman.text.tokens.tokenizer import EOS

STOPS = ("early", "first", "heuristic", "full", "certain")
"""Stop rules in the order of native/beam.c."""


class StepStruct(ctypes.Structure):
    """Struct ``Step`` of native/beam.c."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("N", "W", "K", "vocabulary", "nbest", "eos", "stop")),
        *((name, ctypes.c_void_p) for name in ("logits", "ranked", "divisors")),
        *((name, ctypes.c_void_p) for name in ("sentence", "limit", "length", "finished", "best", "total")),
        *((name, ctypes.c_void_p) for name in ("new_total", "parent", "token", "row", "keep")),
        *((name, ctypes.c_void_p) for name in ("ended_total", "ended_score", "ended_sentence", "ended_parent")),
        *((name, ctypes.c_void_p) for name in ("real", "truncated")),
        *((name, ctypes.c_int64) for name in ("left", "moved", "ended")),
    ]


class BeamState(NamedTuple):
    """The sentences of a beam search that are still being translated; a step changes these tensors in place."""

    sentence: Int[Tensor, " N"]
    """Index in the batch."""
    limit: Int[Tensor, " N"]
    """Most tokens of a translation."""
    length: Int[Tensor, " N"]
    """Tokens emitted."""
    finished: Int[Tensor, " N"]
    """Translations that have ended."""
    best: Float[Tensor, "N nbest"]
    """Their best scores."""
    total: Float[Tensor, "N W"]
    """Log-probability of each hypothesis."""


class BeamStep(NamedTuple):
    """The outcome of a step."""

    state: BeamState
    choice: Choice | None
    ended: EndedHypotheses
    continued: ContinuedRows | None


def beam_step(
    state: BeamState,
    logits: Float[Tensor, "R V"],
    ranked: Float[Tensor, "R V"],
    divisors: Float[Tensor, " lengths"],
    beams: int,
    stop: str,
) -> BeamStep:
    """Make a step of a beam search.

    Args:
        state: the sentences; its tensors are used up.
        logits: of the model.
        ranked: the logits after the rules; the same tensor where none changed them.
        divisors: of the score of a translation, by its length.
        beams: hypotheses of each sentence, K.
        stop: one of ``STOPS``.
    """
    (N, W), rows = state.total.shape, len(state.total) * beams
    numbers, whole = torch.empty(3, rows), torch.empty(6, rows, dtype=torch.long)
    flags = torch.empty(2, rows, dtype=torch.bool)
    at, of, flag = numbers.data_ptr(), whole.data_ptr(), flags.data_ptr()
    step = StepStruct(
        *(N, W, beams, logits.shape[1], state.best.shape[1], EOS, STOPS.index(stop)),
        *(logits.data_ptr(), ranked.data_ptr(), divisors.data_ptr()),
        *(field.data_ptr() for field in state),
        *(at, *(of + 8 * rows * i for i in range(4))),
        *(at + 4 * rows, at + 8 * rows, of + 32 * rows, of + 40 * rows),
        *(flag, flag + rows),
    )
    library().beam_step(ctypes.addressof(step))
    left, e = step.left, step.ended
    ended = EndedHypotheses(flags[0, :e], whole[4, :e], whole[5, :e], numbers[1, :e], numbers[2, :e], flags[1, :e])
    if left == 0:
        return BeamStep(state, None, ended, None)
    n = left * beams
    total, parent, token, row = numbers[0, :n], whole[0, :n], whole[1, :n], whole[2, :n]
    if left < N:
        state = BeamState(*(field[:left] for field in state))
    keep = whole[3, :left] if left < N else None
    choice = Choice(keep, row if step.moved and beams == W else None, token)
    return BeamStep(state._replace(total=total.view(left, beams)), choice, ended, ContinuedRows(parent, token, total))
