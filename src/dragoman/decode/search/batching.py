"""Which sentences are searched together: batches of like length, and what is left of several of them put together.

Some translations of a batch run long. If the batch only shrank, most steps would be made for those few, and a step for
few costs nearly as much as one for many. So a batch of which half is done rests, and goes on with what is left of
others, as soon as together they fill its places again. What comes out does not depend on it: rows of different ages
share a step, told apart by their positions. Batches that are never put together are the slow twin: ``share`` = 0.

The other way to keep a batch full is to let fresh sentences take the places of those that are done (Yu et al. 2022,
"Orca"), as one must where they come in over time. Where all of them are there from the start it saves as many steps and
costs more: old and young share every step, and attention reads as many columns for each row as the oldest one has. What
is left of batches is of nearly one age.

B sentences of a batch, S source length.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from dragoman.decode.search.beam import Beam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.rule import Rule
from dragoman.decode.search.search import SearchBatch, SearchConfig, begin
from dragoman.decode.search.strategy import Hypothesis
from dragoman.decode.search.teacher_forcing import padded
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel

JOINING = (Greedy, Beam, DiverseBeam)
"""Searches whose batches may be put together. The others keep the batch they began with, and so does whatever has to
say terms: samples of a sentence hold its place until the last of them ends, coverage and banks of terms are kept by
batch, and speculation takes one sentence at a time."""
SHARE = 0.5
"""A batch rests when no more than this share of its places is taken; 0.1 to 0.5 cost about the same."""

BatchFactory = Callable[[list[int], Int[Tensor, "B S"]], tuple[SearchConfig, list[Rule]]]
"""How the sentences of these numbers are searched, and what they may say: the same kinds for all of one search."""
Progress = Callable[[int], None]


def search_all(
    model: SequenceModel,
    rows: Sequence[Sequence[int]],
    asked: BatchFactory,
    room: int,
    policy: KVPolicy = DEFAULT,
    *,
    share: float = SHARE,
    progress: Progress = lambda done: None,
) -> list[list[Hypothesis]]:
    """Translate sentences, those of like length together; for each its hypotheses, best first.

    Args:
        model: any family; it is run without dropout.
        rows: sources in ids, each with its EOS.
        asked: called for each batch that begins.
        room: source tokens translated at a time, padding included; batches that rest hold up to half as many more.
        policy: what attention layers keep of the past.
        share: of its places, how many are left taken when a batch rests; 0 for batches that only shrink.
        progress: called with the number of sentences done.

    Raises:
        CheckpointError: the model's logits are not numbers.
    """
    work = _Work(model, rows, asked, room, policy, share, progress)
    with model.without_dropout():
        while work.waiting or work.resting:
            work.go_on(work.together() if work.resting_ones_fill_a_batch() else work.fresh())
    progress(len(rows))
    return work.found


@dataclass
class _Lot:
    """Sentences that are searched together."""

    batch: SearchBatch
    numbers: list[int]
    """Which ones, in the order of the batch."""
    left: list[int]
    """Those of them that are under way."""


class _Work:
    """What is to be done, what is done, and the batches that rest in between."""

    def __init__(
        self,
        model: SequenceModel,
        rows: Sequence[Sequence[int]],
        asked: BatchFactory,
        room: int,
        policy: KVPolicy,
        share: float,
        progress: Progress,
    ):
        self.model, self.rows, self.asked, self.policy = model, rows, asked, policy
        self.room, self.share, self.progress = room, share, progress
        self.found: list[list[Hypothesis]] = [[] for _ in rows]
        self.waiting = deque(sorted(range(len(rows)), key=lambda i: -len(rows[i])))
        """The longest first, so that what does not fit into memory shows at once, and steps for few are short."""
        self.resting: list[_Lot] = []

    def fresh(self) -> _Lot:
        """As many of those that wait as there is room for."""
        count = min(len(self.waiting), self.places(self.waiting[0]))
        numbers = [self.waiting.popleft() for _ in range(count)]
        source = padded([self.rows[i] for i in numbers], self.model.device)
        cfg, rules = self.asked(numbers, source)
        return _Lot(begin(self.model, source, cfg, self.policy, rules), numbers, numbers)

    def places(self, *numbers: int) -> int:
        """Sentences for which there is room if none is longer than these."""
        return max(1, self.room // max(len(self.rows[i]) for i in numbers))

    def fit(self, *lots: _Lot) -> bool:
        left = [i for lot in lots for i in lot.left]
        return len(left) <= self.places(*left)

    def resting_ones_fill_a_batch(self) -> bool:
        return bool(self.resting) and (not self.waiting or not self.fit(*self.resting))

    def together(self) -> _Lot:
        """Those that have rested longest, as many as fit."""
        first, *rest = self.resting
        self.resting = []
        for lot in rest:
            if self.fit(first, lot):
                first.batch.join(lot.batch)
                first = _Lot(first.batch, first.numbers + lot.numbers, first.left + lot.left)
            else:
                self.resting.append(lot)
        return first

    def go_on(self, lot: _Lot) -> None:
        """Until all are done, or few enough are left to be put together with others."""
        few = self.share * self.places(*lot.left) if may_be_joined(lot.batch) else 0.0
        while choice := lot.batch.step():
            under_way = len(choice.tokens) // lot.batch.strategy.beams
            resting = sum(len(other.left) for other in self.resting)
            self.progress(len(self.rows) - len(self.waiting) - resting - under_way)
            if under_way <= few:
                lot.left = [lot.numbers[i] for i in lot.batch.strategy.sentence.tolist()]
                if self.waiting or any(self.fit(lot, other) for other in self.resting):
                    self.resting.append(lot)
                    return
        for i, hypotheses in zip(lot.numbers, lot.batch.strategy.results(), strict=True):
            self.found[i] = hypotheses


def may_be_joined(batch: SearchBatch) -> bool:
    return type(batch.cfg) in JOINING and all(rule.joinable for rule in batch.rule.rules)
