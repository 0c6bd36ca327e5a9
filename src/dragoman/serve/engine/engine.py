"""The engine: one thread that computes for all requests.

It repeats a round: rows that nobody waits for any more leave; waiting rows start while there is memory for all that
they may ever write; every group makes a step; waiting inputs of readers are read in one batch. Requests wait in threads
of their own (``Searcher``), so that whatever comes before and after search is the code of the command line.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from dragoman.decode.search.task import Progress, Searcher, SearchTask
from dragoman.model.caches.cache import Cache, PooledCache
from dragoman.model.interface import SequenceModel
from dragoman.serve.engine.group import Group
from dragoman.serve.engine.limits import (
    BULK_SHARE,
    FEW_SHARE,
    MOST_ROWS,
    PATIENCE,
    PREFIX_SHARE,
    START_SHARE,
    START_TOKENS,
)
from dragoman.serve.engine.pages import CacheCost, Tally, model_translates, pool_bytes
from dragoman.serve.engine.prefixes import PrefixCache
from dragoman.serve.engine.requests import Kind, Listener, Row, Ticket, Waiter
from dragoman.serve.engine.turns import Turns
from dragoman.serve.errors import Draining, TooLarge

log = logging.getLogger(__name__)

PRIORITIES = ("interactive", "bulk")
"""Priorities of requests, the first one first."""


class ServedWriter:
    """A model that writes, with the memory of its caches."""

    def __init__(self, model: SequenceModel, cache: Cache, memory: int):
        """
        Args:
            memory: most bytes of its caches.
        """
        self.memory, self.cost = memory, CacheCost.measure(model, cache)
        pages = int(memory / max(1.0, self.cost.per_token))
        self.policy = PooledCache(cache, pages if self.cost.pooled else None)
        self.prefixes = None if model_translates(model) else PrefixCache(int(pages * PREFIX_SHARE))


@dataclass(frozen=True)
class EngineStats:
    """The engine at a moment."""

    waiting: int
    """Rows that have not started."""
    running: int
    """Rows that are being searched."""
    steps: int
    """Steps of all groups since the start."""
    tokens: int
    """Tokens chosen since the start, those of all hypotheses."""
    busy: float
    """Seconds since the start in which something was computed."""
    memory: int
    """Bytes that caches may take."""
    reserved: int
    """Bytes that the running rows may need."""
    allocated: int
    """Bytes of the pools of pages."""
    prefix_hits: int


class Engine:
    """Computes for many requests at a time."""

    def __init__(self, memory: int, cache: Cache, models: int = 1):
        """
        Args:
            memory: most bytes of all caches together. Each model that writes has an equal share: pools of pages do not
                shrink, so that what one model once needed is not there for the others.
            cache: layout and storage of the caches.
            models: number of models that write.
        """
        self.memory, self.share, self.cache, self.turns = memory, memory // max(1, models), cache, Turns()
        self.writers: WeakKeyDictionary[SequenceModel, ServedWriter] = WeakKeyDictionary()
        """By model; a model that was swapped stays until its last request has ended."""
        self.groups: dict[Kind, Group] = {}
        self.waiting: dict[str, deque[Row]] = {priority: deque() for priority in PRIORITIES}
        self.reading: deque[tuple[Any, Sequence[Any], Waiter]] = deque()
        self.waiters: set[Waiter] = set()
        """Everybody who waits, wherever their rows are."""
        self.steps = self.tokens = self.running = 0
        self.reserved = self.busy = 0.0
        self._changed, self._ending = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ---- what requests call ----

    def add(self, model: SequenceModel) -> None:
        """Make a model that writes known before it is searched."""
        with self.turns.take():
            self.writers[model] = ServedWriter(model, self.cache, self.share)

    def retire(self, model: SequenceModel) -> None:
        """Keep no more prefixes of a model that was swapped: their states may hold it, and so would the engine."""
        with self.turns.take():
            if (writer := self.writers.get(model)) and writer.prefixes:
                writer.prefixes.close()

    def searcher(self, ticket: Ticket, listener: Listener | None = None, likeliest: int = 0) -> Searcher:
        """Return the searcher for a request's tasks.

        Args:
            likeliest: number of the most probable tokens of each step that the listener is told of.
        """

        def search(task: SearchTask, batch_tokens: int, *, progress: Progress = lambda done: None) -> list:
            waiter = Waiter(len(task.rows), ticket, progress)
            rows = [Row(task, i, waiter, listener, likeliest) for i in range(len(task.rows))]
            for row in rows:
                self._check_size(row)
            return self._wait(waiter, lambda: self.waiting[ticket.call.priority].extend(rows))

        return search

    def read(self, reader: Any, rows: Sequence[Any], ticket: Ticket) -> list[torch.Tensor]:
        """Return what ``reader`` answers to rows that its material has prepared."""
        waiter = Waiter(len(rows), ticket)
        return self._wait(waiter, lambda: self.reading.append((reader, rows, waiter)))

    def _wait(self, waiter: Waiter, enqueue: Callable[[], None]) -> list[Any]:
        """Hand work to the thread; return its results.

        Raises:
            Draining: the engine ends.
            Exception: what made a row fail.
        """
        with self._changed:
            if self._ending:
                raise Draining
            self.waiters.add(waiter)
            enqueue()
            self._changed.notify()
        try:
            return waiter.wait()
        finally:
            with self._changed:
                self.waiters.discard(waiter)

    def wake(self) -> None:
        """Let the engine look at cancelled requests now."""
        with self._changed:
            self._changed.notify()

    def stats(self) -> EngineStats:
        """Return counts of this moment."""
        return EngineStats(
            waiting=sum(map(len, self.waiting.values())) + len(self.reading),
            running=self.running,
            steps=self.steps,
            tokens=self.tokens,
            busy=self.busy,
            memory=self.memory,
            reserved=int(self.reserved),
            allocated=pool_bytes(writer.policy for writer in list(self.writers.values())),
            prefix_hits=sum(writer.prefixes.hits for writer in list(self.writers.values()) if writer.prefixes),
        )

    def close(self) -> None:
        """End the thread; requests that still wait fail."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ---- the thread ----

    def _run(self) -> None:
        while not self._ending:
            with self._changed:
                while not (self._ending or self._busy()):
                    self._changed.wait()
            try:
                with self.turns.take(), torch.inference_mode():
                    self._round()
            except Exception as error:
                log.exception("the engine failed; its requests are given up")
                self._give_up(error)
        self._give_up(Draining())

    def _busy(self) -> bool:
        return bool(self.groups or self.reading or any(self.waiting.values()))

    def _round(self) -> None:
        began = time.monotonic()
        for group in self.groups.values():
            group.drop_unwanted()
        self._admit()
        for group in self.groups.values():
            self.tokens += group.step()
            self.steps += 1
        self.groups = {kind: group for kind, group in self.groups.items() if group.batches()}
        tallies = [group.tally() for group in self.groups.values()]
        self.running = sum(tally.count for tally in tallies)
        self.reserved = sum(tally.nbytes for tally in tallies)
        self._read_inputs()
        self.busy += time.monotonic() - began

    def _admit(self) -> None:
        """Start waiting rows, interactive ones first, each kind's together."""
        if not any(self.waiting.values()):
            return
        tallies = {kind: group.tally() for kind, group in self.groups.items()}
        starting, room = dict[Kind, list[Row]](), START_TOKENS
        for priority in PRIORITIES:
            queue, held = self.waiting[priority], list[Row]()
            with self._changed:  # requests append to it meanwhile
                waiting = [row for row in queue if row.is_wanted()]
                queue.clear()
                queue.extend(waiting)
            held_back = _holding_back(tallies, self.groups, waiting)
            while queue and room > 0:
                row = queue.popleft()
                tally = tallies.setdefault(row.kind, Tally(self._writer(row).cost))
                if row.kind in held_back or not _has_place(tally, row):
                    held.append(row)
                elif not self._has_memory(tallies, row):
                    held.append(row)
                    break  # those behind wait too, so that a long one is not passed by for ever
                else:
                    tally.add(row)
                    starting.setdefault(row.kind, []).append(row)
                    room -= len(row.ids)
            queue.extendleft(reversed(held))
            if held:
                break
        for kind, rows in starting.items():
            writer = self._writer(rows[0])
            self.groups.setdefault(kind, Group(writer.cost, writer.prefixes)).start(rows)

    def _has_memory(self, tallies: dict[Kind, Tally], row: Row) -> bool:
        """Return whether the row has memory beside all that run and start with its model; prefixes make room if need
        be."""
        writer, model = self._writer(row), row.kind[0]
        others = sum(tally.nbytes for kind, tally in tallies.items() if kind[0] == model and kind != row.kind)
        needed = others + tallies[row.kind].nbytes_with(row)
        if writer.prefixes and needed + writer.prefixes.tokens * writer.cost.per_token > writer.memory:
            writer.prefixes.clear()
        return needed <= writer.memory

    def _writer(self, row: Row) -> ServedWriter:
        return self.writers[row.task.model]

    def _check_size(self, row: Row) -> None:
        writer = self._writer(row)
        needed = Tally(writer.cost, [row]).nbytes
        if needed > writer.memory:
            raise TooLarge(int(needed), writer.memory)

    def _read_inputs(self) -> None:
        """Read waiting inputs of one reader in one batch."""
        if not self.reading:
            return
        reader, together = self.reading[0][0], list[tuple[Sequence[Any], Waiter]]()
        while self.reading and self.reading[0][0] is reader and sum(len(rows) for rows, _ in together) < MOST_ROWS:
            _, rows, waiter = self.reading.popleft()
            if problem := waiter.ticket.problem():
                waiter.fail(problem)
            else:
                together.append((rows, waiter))
        try:
            answers = iter(reader.of_rows([row for rows, _ in together for row in rows]))
        except Exception as error:
            for _, waiter in together:
                waiter.fail(error)
            return
        for rows, waiter in together:
            for i in range(len(rows)):
                waiter.deliver(i, next(answers))

    def _give_up(self, error: Exception) -> None:
        """Let everybody who waits fail: a round that was left half-way may hold rows that are nowhere else."""
        with self._changed:
            waiters, self.groups, self.running, self.reserved = list(self.waiters), {}, 0, 0.0
            self.reading.clear()
            for queue in self.waiting.values():
                queue.clear()
        for waiter in waiters:
            waiter.fail(error)


def _holding_back(tallies: dict[Kind, Tally], groups: dict[Kind, Group], queue: Sequence[Row]) -> set[Kind]:
    """Return the kinds whose rows wait a little longer, so that more of them start together.

    A start costs about as much for one row as for many. It waits where more rows wait than there are places, until a
    share of the places is free; and where few wait beside many that run, for a few steps.
    """
    waiting, held = Counter(row.kind for row in queue), set[Kind]()
    beams = {row.kind: row.task.beams for row in queue}
    for kind, count in waiting.items():
        if kind not in groups:
            continue
        most, running = max(1, MOST_ROWS // max(1, beams[kind])), tallies[kind].count
        crowded = most - running < count and most - running < START_SHARE * most
        few = count < FEW_SHARE * running and groups[kind].steps_since_start < PATIENCE
        if crowded or few:
            held.add(kind)
    return held


def _has_place(tally: Tally, row: Row) -> bool:
    """Return whether a group may have one more row."""
    most = max(1, MOST_ROWS // max(1, row.task.beams))
    if row.waiter.ticket.call.priority == "bulk" and tally.interactive:
        most = max(1, int(most * BULK_SHARE))
    return tally.count < most
