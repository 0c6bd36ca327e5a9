"""Requests as the engine sees them: rows that somebody waits for."""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dragoman.decode.search.task import SearchTask
from dragoman.serve.errors import Cancelled, DeadlinePassed

Priority = Literal["interactive", "bulk"]
Kind = tuple[int, Hashable]
"""A model, and what else rows must have in common to share a batch."""
Likeliest = tuple[tuple[int, float], ...]
"""Most probable tokens at a step, best first, with their log-probabilities."""
Listener = Callable[[int, int, float, Likeliest], None]
"""Called with the index among a row's hypotheses, a token, its log-probability, and the most probable tokens of its
step, as soon as the token is chosen."""


@dataclass(frozen=True)
class Call:
    """How a request is to be treated, whatever it asks for."""

    priority: Priority = "interactive"
    """Interactive requests start before bulk ones."""
    deadline: float | None = None
    """Seconds from now after which no answer is wanted any more."""
    admitted: bool = False
    """True for a part of a request that has its place already (``Service.place``)."""


INTERACTIVE, BULK = Call(), Call("bulk")


class Ticket:
    """A request that runs: how it is to be treated, and whether anybody still waits for it."""

    def __init__(self, call: Call):
        self.call, self.cancelled = call, False
        self.ends = None if call.deadline is None else time.monotonic() + call.deadline

    def cancel(self) -> None:
        """Give up the request; its rows leave their batch at the next step."""
        self.cancelled = True

    def problem(self) -> Exception | None:
        """Return why no answer is wanted any more; None while one is."""
        if self.cancelled:
            return Cancelled()
        if self.ends is not None and time.monotonic() > self.ends:
            return DeadlinePassed(self.call.deadline or 0.0)
        return None


class Waiter:
    """Rows that a thread waits for, and their results."""

    def __init__(self, count: int, ticket: Ticket, progress: Callable[[int], None] = lambda done: None):
        self.ticket, self.progress = ticket, progress
        self.found: list[Any] = [None] * count
        self.left, self.error = count, None
        self._changed = threading.Condition()

    def deliver(self, index: int, result: Any) -> None:
        with self._changed:
            self.found[index] = result
            self.left -= 1
            self._changed.notify()

    def fail(self, error: Exception) -> None:
        with self._changed:
            self.error = self.error or error
            self._changed.notify()

    @property
    def over(self) -> bool:
        """True where nobody waits for the rows any more."""
        return self.error is not None

    def wait(self) -> list[Any]:
        """Wait for all rows; return their results.

        Raises:
            Exception: what made one of them fail.
        """
        with self._changed:
            while self.left and self.error is None:
                self._changed.wait()
                self.progress(len(self.found) - self.left)
        if self.error is not None:
            raise self.error
        return self.found


@dataclass(eq=False)
class Row:
    """One row of a task, which waits, or is part of a batch."""

    task: SearchTask
    index: int
    waiter: Waiter
    listener: Listener | None = None
    likeliest: int = 0
    """Number of the most probable tokens that the listener is told of."""

    ids: Sequence[int] = field(init=False)
    kind: Kind = field(init=False)
    """Rows of the same kind may share a batch."""
    length: int = field(init=False)
    """Number of tokens that the model reads."""
    written: int = field(init=False)
    """Most tokens that its hypotheses may have together."""

    def __post_init__(self) -> None:
        task = self.task
        self.ids, self.kind = task.rows[self.index], (id(task.model), task.kind)
        self.length, self.written = len(self.ids), task.beams * task.limits[self.index]

    def is_wanted(self) -> bool:
        """Return whether somebody still needs it; where nobody does, tell whoever waits for it why."""
        if not self.waiter.over and (problem := self.waiter.ticket.problem()):
            self.waiter.fail(problem)
        return not self.waiter.over
