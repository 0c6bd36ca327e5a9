"""A step of beam search by our C kernel (``native/beam.c``): one call instead of some forty small operations.

For a small model these operations cost more than the model does. The slow twin is ``BeamStrategy.step``.

N sentences, W hypotheses of each before the step, K after it, R rows, V vocabulary, E hypotheses that ended.
"""

import ctypes
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.decode.search.backpointers import CONTINUED, ENDED
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
        *((name, ctypes.c_int64) for name in ("end_count", "candidates", "open_ended")),
        *((name, ctypes.c_void_p) for name in ("ends", "logits", "ranked", "complete", "divisors")),
        *((name, ctypes.c_void_p) for name in ("sentence", "limit", "length", "finished", "best", "total", "log_prob")),
        *((name, ctypes.c_void_p) for name in ("new_total", "new_log_prob", "row", "keep", "continued", "found")),
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
    """Log-probability of each hypothesis as rules changed it, to rank by."""
    log_prob: Float[Tensor, "N W"]
    """The model's own."""


class BeamSettings(NamedTuple):
    """Settings of a beam search, the same at all steps."""

    divisors: Float[Tensor, " lengths"]
    """Divisors of the score of an answer, by its length."""
    beams: int
    """Hypotheses of each sentence, K."""
    stop: str
    """One of ``STOPS``."""
    ends: Int[Tensor, " n"]
    """Tokens that end an answer."""
    candidates: int
    """Candidates of a sentence at each step."""
    open_ended: bool
    """True where the limit ends an answer after its last token; False where that token is EOS."""


class BeamStep(NamedTuple):
    """The outcome of a step."""

    state: BeamState
    choice: Choice | None
    ended: np.ndarray
    continued: np.ndarray
    """Empty where no sentence goes on."""


def beam_step(
    state: BeamState,
    logits: Float[Tensor, "R V"],
    ranked: Float[Tensor, "R V"],
    complete: Bool[Tensor, " R"] | None,
    settings: BeamSettings,
) -> BeamStep:
    """Make a step of a beam search.

    Args:
        state: the sentences; its tensors are used up.
        logits: of the model.
        ranked: the logits after the rules; the same tensor where none changed them.
        complete: rows whose answers are complete; EOS, which ends them, is no part of them.
        settings: what does not change from step to step.
    """
    (N, W), beams = state.total.shape, settings.beams
    rows = N * beams
    found = _Outcome(rows, rows)
    complete = None if complete is None else complete.contiguous()
    addresses = logits.data_ptr(), ranked.data_ptr(), None if complete is None else complete.data_ptr()
    step = found.struct(state, settings, logits.shape[1], *addresses)
    library().beam_step(ctypes.addressof(step))
    left, continued = step.left, found.continued[: step.left * beams]
    choice = None
    if left:
        state = found.state_after(state, left, beams, 0)
        row, keep = found.places[: left * beams], found.places[rows : rows + left]
        token = torch.from_numpy(continued["token"].copy())
        choice = Choice(keep if left < N else None, row if step.moved and beams == W else None, token)
    return BeamStep(state, choice, found.ended[: step.ended], continued)


class _Outcome:
    """Room for what the kernel finds in one or several steps: up to ``size`` hypotheses in all, ``rows`` of a step."""

    def __init__(self, size: int, rows: int):
        self.size, self.rows = size, rows
        self.totals, self.places = torch.empty(2 * size), torch.empty(2 * rows, dtype=torch.long)
        self.continued, self.ended = np.empty(size, CONTINUED), np.empty(size, ENDED)

    def struct(
        self,
        state: BeamState,
        settings: BeamSettings,
        vocabulary: int,
        logits: int | None = None,
        ranked: int | None = None,
        complete: int | None = None,
    ) -> StepStruct:
        """Return the step as the kernel reads it; ``logits`` and ``ranked`` are addresses, None where it sets them."""
        totals, places = self.totals.data_ptr(), self.places.data_ptr()
        return StepStruct(
            *(*state.total.shape, settings.beams, vocabulary, state.best.shape[1], EOS, STOPS.index(settings.stop)),
            *(len(settings.ends), settings.candidates, settings.open_ended, settings.ends.data_ptr(), logits, ranked),
            *(complete, settings.divisors.data_ptr(), *(field.data_ptr() for field in state)),
            *(totals, totals + 4 * self.size, places, places + 8 * self.rows),
            *(self.continued.ctypes.data, self.ended.ctypes.data),
        )

    def state_after(self, state: BeamState, left: int, beams: int, before: int) -> BeamState:
        """Return the state of the ``left`` sentences that go on; ``before`` rows continued before the last step."""
        if left < len(state.sentence):
            state = BeamState(*(field[:left] for field in state))
        end = before + left * beams
        total = self.totals[before:end].view(left, beams)
        log_prob = self.totals[self.size + before : self.size + end].view(left, beams)
        return state._replace(total=total, log_prob=log_prob)


class BeamWalk(NamedTuple):
    """The outcome of several steps."""

    walked: Walked
    state: BeamState
    ended: np.ndarray
    continued: np.ndarray


def beam_walk(
    state: BeamState,
    settings: BeamSettings,
    model: StepKernel,
    slots: Slots,
    token: Int[Tensor, " R"],
    most: int,
    few: int,
) -> BeamWalk:
    """Make several steps of a beam search, and let the model read before each.

    Args:
        state, settings: as of ``beam_step``.
        model: what reads the tokens.
        slots: its state; it follows the search.
        token: the tokens to read first.
        most: most steps.
        few: it ends when no more than so many sentences are left.
    """
    beams = settings.beams
    rows = len(state.total) * max(beams, state.total.shape[1])
    steps = most_steps(slots.pool, rows, min(most, int((state.limit - state.length).max())))
    found = _Outcome(rows * steps, rows)
    step = found.struct(state, settings, model.output_size)
    walked = walk(library().walk_beam, step, model, slots, token, rows=rows, steps=steps, few=few)
    continued, ended = sum(walked.continued), sum(walked.ended)
    if walked.left:
        state = found.state_after(state, walked.left, beams, continued - walked.continued[-1])
    return BeamWalk(walked, state, found.ended[:ended], found.continued[:continued])
