"""Batches of sentences that are searched together: grouped by length, and merged when few of them are left.

Some translations of a batch run long. If the batch only shrank, most steps would be made for those few, and a step for
few costs nearly as much as one for many. So a batch of which half is done rests. It goes on with the remainders of
other batches as soon as together they fill its capacity again. The translations do not depend on this: rows of
different ages share a step and are told apart by their positions. The slow twin never merges: ``share`` = 0.

Continuous batching (Yu et al. 2022, "Orca") fills free places with new sentences instead. It is needed where sentences
arrive over time. Where all of them are there from the start it saves as many steps and costs more: old and new rows
share every step, and attention reads as many columns for each row as the oldest one has. The remainders merged here are
of nearly one age.

B sentences of a batch, S source length.
"""

from collections import deque
from dataclasses import dataclass

from dragoman.decode.search.beam import Beam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchBatch
from dragoman.decode.search.strategy import Hypothesis
from dragoman.decode.search.task import Progress, SearchTask

JOINING = (Greedy, Beam, DiverseBeam, Sample, MinimumBayesRisk)
"""Searches whose batches may be joined. The others keep the sentences they started with, and so does every search with
required terms: coverage and banks of terms are kept for each batch, and speculation takes one sentence at a time."""
SHARE = 0.5
"""Fraction of its capacity at which a batch rests; values from 0.1 to 0.5 were measured to cost about the same."""


def search_all(
    task: SearchTask, batch_tokens: int, *, share: float = SHARE, progress: Progress = lambda done: None
) -> list[list[Hypothesis]]:
    """Translate sentences in batches of similar length; return the hypotheses of each, best first.

    Args:
        task: the sentences.
        batch_tokens: source tokens translated at a time, padding included; resting batches hold up to half as many
            more.
        share: fraction of its capacity at which a batch rests; 0 for batches that only shrink.
        progress: called with the number of sentences done.

    Raises:
        CheckpointError: the model's logits are not numbers.
    """
    work = _Work(task, batch_tokens, share, progress)
    with task.model.without_dropout():
        while work.waiting or work.resting:
            work.run(work.merge_resting() if work.resting_fill_a_batch() else work.start_next())
    progress(len(task.rows))
    return work.found


@dataclass
class _RunningBatch:
    """Sentences that are searched together."""

    batch: SearchBatch
    numbers: list[int]
    """Indices of its sentences, in the order of the batch."""
    unfinished: list[int]
    """Indices of those still being translated."""


class _Work:
    """The state of ``search_all``: sentences to start, batches at rest, and results."""

    def __init__(self, task: SearchTask, batch_tokens: int, share: float, progress: Progress):
        self.start, self.lengths = task.start, list(map(len, task.rows))
        self.batch_tokens, self.share, self.progress = batch_tokens, share, progress
        self.found: list[list[Hypothesis]] = [[] for _ in self.lengths]
        self.waiting = deque(sorted(range(len(self.lengths)), key=lambda i: -self.lengths[i]))
        """Longest first, so that running out of memory shows at once, and the last steps, made for few, are short."""
        self.resting: list[_RunningBatch] = []

    def start_next(self) -> _RunningBatch:
        """Start a batch with as many waiting sentences as fit."""
        count = min(len(self.waiting), self.capacity(self.waiting[0]))
        numbers = [self.waiting.popleft() for _ in range(count)]
        return _RunningBatch(self.start(numbers), numbers, numbers)

    def capacity(self, *numbers: int) -> int:
        """Return the number of sentences that fit if none is longer than these."""
        return max(1, self.batch_tokens // max(map(self.lengths.__getitem__, numbers)))

    def fits_together(self, *batches: _RunningBatch) -> bool:
        unfinished = [i for running in batches for i in running.unfinished]
        return len(unfinished) <= self.capacity(*unfinished)

    def resting_fill_a_batch(self) -> bool:
        return bool(self.resting) and (not self.waiting or not self.fits_together(*self.resting))

    def merge_resting(self) -> _RunningBatch:
        """Merge the batches that have rested longest, as many as fit."""
        first, *rest = self.resting
        self.resting = []
        for running in rest:
            if self.fits_together(first, running):
                first.batch.join(running.batch)
                first = _RunningBatch(
                    first.batch, first.numbers + running.numbers, first.unfinished + running.unfinished
                )
            else:
                self.resting.append(running)
        return first

    def run(self, running: _RunningBatch) -> None:
        """Step until all are done, or few enough are left to be merged with others."""
        others = (self.waiting or self.resting) and can_be_joined(running.batch)
        few = int(self.share * self.capacity(*running.unfinished)) if others else 0
        while choice := running.batch.advance(few=few):
            under_way = len(choice.tokens) // running.batch.strategy.beams
            resting = sum(len(other.unfinished) for other in self.resting)
            self.progress(len(self.lengths) - len(self.waiting) - resting - under_way)
            if under_way <= few:
                running.unfinished = [running.numbers[i] for i in running.batch.strategy.sentence.tolist()]
                if self.waiting or any(self.fits_together(running, other) for other in self.resting):
                    self.resting.append(running)
                    return
        for i, hypotheses in zip(running.numbers, running.batch.strategy.results(), strict=True):
            self.found[i] = hypotheses


def can_be_joined(batch: SearchBatch) -> bool:
    return type(batch.cfg) in JOINING and all(rule.joinable for rule in batch.rule.rules)
