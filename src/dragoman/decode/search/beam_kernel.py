"""A step of beam search by our C kernel (``native/beam.c``): one call instead of some forty small operations.

For a small model these operations cost more than the model does. The slow twin is ``BeamStrategy.step``.

N sentences, W hypotheses of each before the step, K after it, R rows, V vocabulary, E hypotheses that ended.
"""

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
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
        *((name, ctypes.c_int64) for name in ("end_count", "candidates", "open_ended")),
        *((name, ctypes.c_void_p) for name in ("ends", "logits", "ranked", "complete", "divisors")),
        *((name, ctypes.c_void_p) for name in ("sentence", "limit", "length", "finished", "best", "total", "log_prob")),
        *((name, ctypes.c_void_p) for name in ("new_total", "new_log_prob", "parent", "token", "row", "keep")),
        *((name, ctypes.c_void_p) for name in ("ended_log_prob", "ended_score")),
        *((name, ctypes.c_void_p) for name in ("ended_sentence", "ended_parent", "ended_token")),
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
    ended: EndedHypotheses
    continued: ContinuedRows | None


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
    found = _Outcome(N * beams, N * beams)
    complete = None if complete is None else complete.contiguous()
    addresses = logits.data_ptr(), ranked.data_ptr(), None if complete is None else complete.data_ptr()
    step = found.struct(state, settings, logits.shape[1], *addresses)
    library().beam_step(ctypes.addressof(step))
    left = step.left
    if left == 0:
        return BeamStep(state, None, found.ended(step.ended), None)
    if left < N:
        state = BeamState(*(field[:left] for field in state))
    continued = found.continued(left * beams)
    row, keep = found.places
    choice = Choice(
        keep[:left] if left < N else None, row[: left * beams] if step.moved and beams == W else None, continued.token
    )
    state = state._replace(total=found.totals(left, beams), log_prob=continued.log_prob.view(left, beams))
    return BeamStep(state, choice, found.ended(step.ended), continued)


class _Outcome:
    """Room for what the kernel finds in one or several steps: up to ``size`` hypotheses in all, ``rows`` of a step."""

    def __init__(self, size: int, rows: int):
        self.numbers, self.whole = torch.empty(4, size), torch.empty(5, size, dtype=torch.long)
        self.flags, self.places = torch.empty(2, size, dtype=torch.bool), torch.empty(2, rows, dtype=torch.long)

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
        total, log_prob, *ended_numbers = _addresses(self.numbers)
        parent, token, *ended_places = _addresses(self.whole)
        return StepStruct(
            *(*state.total.shape, settings.beams, vocabulary, state.best.shape[1], EOS, STOPS.index(settings.stop)),
            *(len(settings.ends), settings.candidates, settings.open_ended, settings.ends.data_ptr(), logits, ranked),
            *(complete, settings.divisors.data_ptr(), *(field.data_ptr() for field in state)),
            *(total, log_prob, parent, token, *_addresses(self.places)),
            *(*ended_numbers, *ended_places, *_addresses(self.flags)),
        )

    def ended(self, count: int) -> EndedHypotheses:
        """Return the first ``count`` hypotheses that ended."""
        fields = self.flags[0], *self.whole[2:], *self.numbers[2:], self.flags[1]
        return EndedHypotheses(*(field[:count] for field in fields))

    def continued(self, count: int) -> ContinuedRows:
        """Return the first ``count`` rows that continued."""
        return ContinuedRows(*(field[:count] for field in (self.whole[0], self.whole[1], self.numbers[1])))

    def totals(self, sentences: int, beams: int, before: int = 0) -> Float[Tensor, "N K"]:
        """Return what the hypotheses that continued are ranked by, after ``before`` of earlier steps."""
        return self.numbers[0, before : before + sentences * beams].view(sentences, beams)


def _addresses(rows: Tensor) -> Iterator[int]:
    """Yield the address of each row."""
    start, size = rows.data_ptr(), rows.shape[1] * rows.element_size()
    return (start + size * row for row in range(len(rows)))


class BeamWalk(NamedTuple):
    """The outcome of several steps."""

    walked: Walked
    state: BeamState
    ended: list[EndedHypotheses]
    continued: list[ContinuedRows]
    """A record less than there were steps where no sentence is left."""


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
    left, counts = walked.left, walked.continued if walked.left else walked.continued[:-1]
    ended, continued = found.ended(sum(walked.ended)), found.continued(sum(counts))
    by_step = [ContinuedRows(*each) for each in zip(*(f.split(counts) for f in continued), strict=True)]
    ends = [EndedHypotheses(*each) for each in zip(*(f.split(walked.ended) for f in ended), strict=True)]
    state = BeamState(*(field[:left] for field in state))
    if left:
        totals, log_prob = found.totals(left, beams, sum(counts[:-1])), by_step[-1].log_prob.view(left, beams)
        state = state._replace(total=totals, log_prob=log_prob)
    return BeamWalk(walked, state, ends, by_step)
