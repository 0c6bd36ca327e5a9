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
from dragoman.model.inference.slots import Slots, StepKernel
from dragoman.model.inference.walk import Walked, most_steps, walk
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


class BeamWalk(NamedTuple):
    """The outcome of several steps."""

    walked: Walked
    state: BeamState
    ended: list[EndedHypotheses]
    continued: list[ContinuedRows]
    """A record less than there were steps where no sentence is left."""


def beam_walk(
    state: BeamState,
    divisors: Float[Tensor, " lengths"],
    beams: int,
    stop: str,
    model: StepKernel,
    slots: Slots,
    token: Int[Tensor, " R"],
    most: int,
    few: int,
) -> BeamWalk:
    """Make several steps of a beam search, and let the model read before each.

    Args:
        state, divisors, beams, stop: as of ``beam_step``.
        model: what reads the tokens.
        slots: its state; it follows the search.
        token: the tokens to read first.
        most: most steps.
        few: it ends when no more than so many sentences are left.
    """
    (N, W), rows = state.total.shape, len(state.total) * max(beams, state.total.shape[1])
    steps = most_steps(slots.pool, rows, min(most, int((state.limit - state.length).max())))
    size = rows * steps
    numbers, whole = torch.empty(3, size), torch.empty(4, size, dtype=torch.long)
    scratch, flags = torch.empty(2, rows, dtype=torch.long), torch.empty(2, size, dtype=torch.bool)
    at, of, flag, row = numbers.data_ptr(), whole.data_ptr(), flags.data_ptr(), scratch.data_ptr()
    step = StepStruct(
        *(N, W, beams, model.output_size, state.best.shape[1], EOS, STOPS.index(stop)),
        *(None, None, divisors.data_ptr()),
        *(field.data_ptr() for field in state),
        *(at, of, of + 8 * size, row, row + 8 * rows),
        *(at + 4 * size, at + 8 * size, of + 16 * size, of + 24 * size),
        *(flag, flag + size),
    )
    walked = walk(library().walk_beam, step, model, slots, token, rows=rows, steps=steps, few=few, eos=EOS)
    left, E, C = walked.left, sum(walked.ended), sum(walked.continued)
    fields = flags[0, :E], whole[2, :E], whole[3, :E], numbers[1, :E], numbers[2, :E], flags[1, :E]
    ended = [EndedHypotheses(*each) for each in zip(*(f.split(walked.ended) for f in fields), strict=True)]
    counts = walked.continued if left else walked.continued[:-1]
    rows_of = (f.split(counts) for f in (whole[0, :C], whole[1, :C], numbers[0, :C]))
    continued = [ContinuedRows(*each) for each in zip(*rows_of, strict=True)] if counts else []
    state = BeamState(*(field[:left] for field in state))
    if left:
        state = state._replace(total=continued[-1].total.view(left, beams))
    return BeamWalk(walked, state, ended, continued)
