"""Processes of this machine that work on shards, each with one computing thread.

They are spawned, not forked: a process that has computed with threads cannot be forked safely. A worker gets a shard
only when it asks for one, so that no more than one of each is in memory, and neither side waits in a write while the
other does, or while a model loads. Its start takes as long as that of the command, which may begin both together.
"""

import importlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic

from dragoman import errors
from dragoman.serve.bulk.scheduler import RowsDone, ShardScheduler, ShardSupply, WorkerFailed
from dragoman.serve.bulk.shard import Shard, ShardProgress, ShardResult, ShardWork, finish

THREADS = "OMP_NUM_THREADS"
"""Environment variable with the computing threads of a process; where the user has set it, it holds."""
OFTEN = 0.5
"""Seconds between two reports of a worker."""
READY = "ready"
"""Message of a worker that has loaded what it needs."""
PATIENCE = 5.0
"""Seconds that a stopped worker has to end."""


EAGER = "dragoman.decode.documents.line_translation"
"""Module that a worker imports before it knows its work: nearly all that takes time."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    shard: Shard | None = None
    """Shard that it works on, or will as soon as it is ready."""
    ready: bool = False


_idle: list[_Worker] = []
"""Workers that have been started and have no work yet."""


def start_early(workers: int) -> None:
    """Start processes that import what they need while this one does too, for the next ``LocalWorkers``."""
    stop_idle()
    _idle.extend(_start() for _ in range(workers))


def stop_idle() -> None:
    """Stop the processes that were started early and got no work."""
    _stop(_idle)


class LocalWorkers(ShardScheduler):
    """Worker processes of this machine."""

    def __init__(self, work: ShardWork, workers: int):
        self.work, self.most = work, workers
        self.workers: list[_Worker] = []

    def results(self, shards: Iterator[Shard], progress: RowsDone) -> Iterator[ShardResult]:
        supply = ShardSupply(shards)
        while True:
            self._hand_out(supply)
            busy = [worker for worker in self.workers if worker.shard is not None]
            if not busy:
                return
            for worker in self._ready(busy):
                shard, message = worker.shard, _received(worker)
                assert shard is not None
                if message is None:
                    supply.give_back(shard, self._bury(worker))
                elif isinstance(message, ShardResult):
                    worker.shard = None
                    yield message
                elif message == READY:
                    worker.ready = True
                    self._give(worker, shard)
                else:
                    progress(shard.number, int(message))

    def _hand_out(self, supply: ShardSupply) -> None:
        """Give a shard to each worker that has none, and start workers while there are shards for them."""
        for worker in [worker for worker in self.workers if worker.shard is None]:
            if (shard := supply.next()) is None:
                return
            self._give(worker, shard)
        while len(self.workers) < self.most and (shard := supply.next()) is not None:
            self.workers.append(worker := _idle.pop() if _idle else _start())
            with suppress(OSError):  # as below
                worker.connection.send(self.work)
            self._give(worker, shard)

    def _give(self, worker: _Worker, shard: Shard) -> None:
        worker.shard = shard
        if not worker.ready:
            return
        with suppress(OSError):  # it has died, which is noticed when its answer is read
            worker.connection.send(shard)

    @staticmethod
    def _ready(busy: list[_Worker]) -> list[_Worker]:
        ready = wait([worker.connection for worker in busy])
        return [worker for worker in busy if worker.connection in ready]

    def _bury(self, worker: _Worker) -> str:
        """Forget a worker that has died; return how it did."""
        self.workers.remove(worker)
        self.lost += 1
        worker.connection.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

    def stop(self) -> None:
        _stop(self.workers)
        stop_idle()


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
        worker.connection.close()
    until = monotonic() + PATIENCE
    for worker in workers:
        worker.process.join(max(0.0, until - monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
    workers.clear()


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True, name="dragoman-worker")
    with _environment(THREADS, os.environ.get(THREADS) or "1"), _without_ctrl_c():
        process.start()
    theirs.close()  # so that the death of the worker closes the pipe
    return _Worker(process, ours)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C from the processes that the block starts, from their first moment on; the parent decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for the processes that the block starts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _received(worker: _Worker) -> ShardResult | int | str | None:
    """Return a worker's result, how many lines it has done, or ``READY``; None if it has died.

    Raises:
        UserError, WorkerFailed: what it has raised.
    """
    try:
        message = worker.connection.recv()
    except (EOFError, OSError):
        return None
    if isinstance(message, tuple):
        raise unwrapped(*message)
    return message


# ---- in the worker ------------------------------------------------------------------------------------


def _work(connection: Connection) -> None:
    """Receive the work, then answer shards until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        importlib.import_module(EAGER)
        work: ShardWork = connection.recv()
        answerer = work.open()
        connection.send(READY)
        while True:
            shard = connection.recv()
            connection.send(finish(answerer, shard, _report_to(connection)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the command has ended
        return
    except Exception as error:
        connection.send(wrapped(error))


def _end_with_parent() -> None:
    """End this process at once when its parent has died, in the middle of a shard too."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
        os._exit(1)


def _report_to(connection: Connection) -> ShardProgress:
    last = monotonic()

    def report(done: int) -> None:
        nonlocal last
        if monotonic() - last > OFTEN:
            connection.send(done)
            last = monotonic()

    return report


def wrapped(error: Exception) -> tuple[str, str]:
    """Return an error as what any process can read: its class and message, or its traceback."""
    if isinstance(error, errors.UserError):
        return type(error).__name__, str(error)
    return "", traceback.format_exc()


def unwrapped(name: str, message: str) -> Exception:
    """Return the error that ``wrapped`` was given, as far as that is known here."""
    if not name:
        return WorkerFailed(f"in a worker:\n{message}")
    kind = getattr(errors, name, errors.UserError)
    return kind(message) if kind is not errors.VocabularyError else errors.ConfigError(message)
