"""Groups: the rows of one kind that are searched together.

New rows start in a batch of their own. After its first step it joins the others: rows of different ages share a step
and are told apart by their positions. Long prompts are read in chunks between the steps of the others. Searches that
keep their batch (``batching.JOINING``) run beside the rest, a step at a time.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dragoman.decode.search.batching import can_be_joined
from dragoman.decode.search.search import SearchBatch
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.search.strategy import Outcome
from dragoman.errors import UserError
from dragoman.serve.engine.limits import CHUNK, MOST_STEPS, SHORT, STEPS
from dragoman.serve.engine.pages import CacheCost, Tally
from dragoman.serve.engine.prefixes import PrefixCache
from dragoman.serve.engine.requests import Row


@dataclass
class _Started:
    """A batch with its rows, by their index in it."""

    batch: SearchBatch
    rows: dict[int, Row] = field(default_factory=dict)
    step_seconds: float = SHORT
    """Seconds that a step takes: one of its last, or of the first ones of a batch before it."""

    @property
    def steps_at_once(self) -> int:
        """Most steps until the next rows can join it."""
        return max(STEPS, min(MOST_STEPS, int(SHORT / self.step_seconds)))


class Group:
    """Rows of one kind: those whose prompts are being read, those that share a batch, and those in batches apart."""

    def __init__(self, cost: CacheCost, prefixes: PrefixCache | None):
        """
        Args:
            cost: bytes of the model's states.
            prefixes: states of earlier prompts; None for a model that reads sources.
        """
        self.cost, self.prefixes = cost, prefixes
        self.steps_since_start = 0
        """Steps since rows were last started."""
        self.first_step_seconds = SHORT
        """Seconds of a step of the rows that were started last."""
        self.reading: deque[_Started] = deque()
        self.shared: _Started | None = None
        self.apart: list[_Started] = []

    @property
    def rows(self) -> list[Row]:
        """All rows that run."""
        return [row for started in self.batches() for row in started.rows.values()]

    def tally(self) -> Tally:
        """Return the bytes that its rows may need."""
        return Tally(self.cost, self.rows)

    def batches(self) -> list[_Started]:
        return [*self.reading, *self.apart, *([self.shared] if self.shared else [])]

    # ---- starting ----

    def start(self, rows: Sequence[Row]) -> None:
        """Start these rows: together where they need nothing but their ids, else those of each task by themselves."""
        self.steps_since_start = 0
        together = [row for row in rows if row.task.start_rows]
        if together and (start_rows := together[0].task.start_rows):
            self._begin(together, lambda: start_rows([row.ids for row in together]))
        by_task: dict[int, list[Row]] = {}
        for row in rows:
            if not row.task.start_rows:
                by_task.setdefault(id(row.task), []).append(row)
        for some in by_task.values():
            for part in [some] if self.prefixes is None else [[row] for row in some]:
                self._begin(part, partial(part[0].task.start, [row.index for row in part]))

    def _begin(self, rows: list[Row], start: Callable[[], SearchBatch]) -> None:
        try:
            started = _Started(start(), dict(enumerate(rows)))
            whole = self.prefixes is None or isinstance(started.batch.cfg, Speculative)  # which guesses from all of it
            if self.prefixes is not None and not whole and (state := self.prefixes.find(rows[0].ids)):
                started.batch.continue_from(state)
        except Exception as error:  # the request's own fault, such as constraints that cannot be met
            fail(rows, error)
            return
        if whole:
            self._first_step(started)
        else:
            self.reading.append(started)

    def _first_step(self, started: _Started) -> int:
        """Make the first step of a batch, and let it join the others if it can; return the number of tokens chosen."""
        joinable = can_be_joined(started.batch)
        most = None  # the state that is kept is the one after the prompt
        if self.prefixes is None:
            started.step_seconds = self.first_step_seconds
            most = STEPS if self.shared else started.steps_at_once
        prompt = started.rows[0].ids
        tokens = self._step(started, keeps_results=not joinable, most=most)
        self.first_step_seconds = started.step_seconds
        if self.prefixes is not None and tokens:
            self.prefixes.keep(prompt, started.batch.opened().state)
        if not started.batch.choice or not started.rows:
            return tokens
        if not joinable:
            self.apart.append(started)
        elif self.shared is None:
            self.shared = started
        else:
            before = self.shared.batch.strategy.sentences
            self.shared.batch.join(started.batch)
            self.shared.rows |= {before + i: row for i, row in started.rows.items()}
        return tokens

    # ---- steps ----

    def step(self) -> int:
        """Read a chunk of a prompt, and make a step of every batch; return the number of tokens chosen."""
        self.steps_since_start += 1
        tokens = sum(map(self._first_step, self._read_prompts()))
        for started in self.apart:
            tokens += self._step(started, keeps_results=True, most=started.steps_at_once)
        self.apart = [started for started in self.apart if started.batch.choice and started.rows]
        if self.shared is not None:
            tokens += self._step(self.shared, most=self.shared.steps_at_once)
            if not self.shared.batch.choice or not self.shared.rows:
                self.shared = None
        return tokens

    def _read_prompts(self) -> list[_Started]:
        """Read a chunk of the prompt that has waited longest, and short prompts of as many tokens together.

        Return those that have been read.
        """
        ready, waiting, room = list[_Started](), deque[_Started](), CHUNK
        for place, started in enumerate(self.reading):
            left = started.batch.unread
            if place and left > room:
                waiting.append(started)
                continue
            room -= left if place else 0
            try:
                done = started.batch.read_ahead(CHUNK)
            except Exception as error:
                fail(started.rows.values(), error)
                continue
            (ready if done else waiting).append(started)
        self.reading = waiting
        return ready

    def _step(self, started: _Started, *, keeps_results: bool = False, most: int | None) -> int:
        """Make a step, or up to ``most`` where nobody listens to each; deliver what is finished.

        ``keeps_results`` is True for a batch that tells them at its end. With None for ``most``, the state keeps the
        rows that end.
        """
        started.batch.likeliest_count = max((row.likeliest for row in started.rows.values()), default=0)
        if most is not None and any(row.listener for row in started.rows.values()):
            most = 1
        rows, before, began = len(started.rows), started.batch.steps, time.monotonic()
        try:
            # those that are done leave at once
            choice = started.batch.step() if most is None else started.batch.advance(most, few=rows - 1)
            self._tell(started)
            if not keeps_results:
                self._deliver(started, started.batch.strategy.take_finished())
            elif not choice:
                self._deliver(started, dict(enumerate(started.batch.strategy.results())))
        except Exception as error:  # its rows fail, and no others
            fail(started.rows.values(), error)
            started.rows.clear()
            return 0
        made = started.batch.steps - before
        started.step_seconds = max(1e-6, (time.monotonic() - began) / made)
        return (len(choice.tokens) if choice else rows) * made

    def _deliver(self, started: _Started, found: Mapping[int, Outcome]) -> None:
        for i, outcome in found.items():
            if (row := started.rows.pop(i, None)) is None:
                continue
            if isinstance(outcome, UserError):
                row.waiter.fail(outcome)
            else:
                row.waiter.deliver(row.index, outcome)

    def _tell(self, started: _Started) -> None:
        """Tell those who listen which tokens were chosen."""
        if not any(row.listener for row in started.rows.values()):
            return
        strategy, noted = started.batch.strategy, started.batch.likeliest
        for new in strategy.newest(len(noted) or 1):
            row = started.rows.get(new.row // strategy.beams)
            if row is not None and row.listener is not None:
                likeliest = noted[new.logits_row][: row.likeliest] if noted else ()
                row.listener(new.row % strategy.beams, new.token, new.log_prob, likeliest)

    # ---- leaving ----

    def drop_unwanted(self) -> None:
        """Let rows leave for which nobody waits any more."""
        for started in self.batches():
            unwanted = [i for i, row in started.rows.items() if not row.is_wanted()]
            for i in unwanted:
                del started.rows[i]
            if unwanted and started is self.shared and started.rows:
                started.batch.strategy.end_early(unwanted)
        self.reading = deque(started for started in self.reading if started.rows)
        self.apart = [started for started in self.apart if started.rows]
        if self.shared is not None and not self.shared.rows:
            self.shared = None


def fail(rows: Iterable[Row], error: Exception) -> None:
    """Tell everybody who waits for these rows why they fail."""
    for row in rows:
        row.waiter.fail(error)
