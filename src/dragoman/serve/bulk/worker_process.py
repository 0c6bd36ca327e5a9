"""Processes of this machine that work on shards: how they start and end, and what they do.

A process that has computed with threads cannot be forked safely. So a worker is spawned, or forked from a template: a
process that has imported what workers need, and computed nothing. Importing takes longer than all else that a worker
does before its first line. A command starts the template early, so that both import at the same time.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Literal

from dragoman import errors
from dragoman.serve.bulk.scheduler import WorkerFailed
from dragoman.serve.bulk.shard import Shard, ShardProgress, ShardResult, ShardWork, finish

StartMethod = Literal["spawn", "forkserver"]
OF_COMMANDS: StartMethod = "forkserver" if sys.platform == "linux" else "spawn"
"""How a command starts its workers. A program that uses this package may have a fork server for uses of its own; and
other systems cannot fork a process that has loaded libraries."""
THREADS = "OMP_NUM_THREADS"
"""Environment variable with the computing threads of a process; where the user has set it, it holds."""
OFTEN = 0.5
"""Seconds between two reports of a worker."""
READY = "ready"
"""Message of a worker that has loaded what it needs."""
PATIENCE = 5.0
"""Seconds that a stopped worker has to end."""
TEMPLATE = "dragoman.serve.bulk.template"
"""Module that is imported before the work is known."""


@dataclass
class Worker:
    """Worker process, as its command sees it."""

    process: BaseProcess
    connection: Connection
    shard: Shard | None = None
    """Shard that it works on, or will as soon as it is ready."""
    ready: bool = False


# ---- in the command -----------------------------------------------------------------------------------


def start_template() -> None:
    """Start the process that a command's workers are forked from; it ends with the command."""
    multiprocessing.set_forkserver_preload([TEMPLATE])
    before = _fork_server()
    with _of_workers():
        forkserver.ensure_running()
    if (number := _fork_server()) is not None and number != before:
        _template[:] = [number]


def stop_template() -> None:
    """Stop the template, if there is one, which may be in the middle of its imports."""
    for number in _template:
        with suppress(OSError):
            os.kill(number, signal.SIGTERM)
    _template.clear()


_template: list[int] = []
"""The process that ``start_template`` has started."""


def _fork_server() -> int | None:
    """Return the number of Python's fork server. Where Python hides it elsewhere, the template is not stopped, but ends
    by itself a second after the command."""
    return getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)


def start_worker(method: StartMethod) -> Worker:
    """Start a worker, which is not ready yet; by ``spawn`` where the template has just died."""
    forked = method == "forkserver"
    context = multiprocessing.get_context("forkserver") if forked else multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True, name="dragoman-worker")
    if forked:
        start_template()
    try:
        with _of_workers():
            process.start()
    except (EOFError, OSError):
        if not forked:
            raise
        return start_worker("spawn")
    theirs.close()  # so that the death of the worker closes the pipe
    return Worker(process, ours)


def stop_workers(workers: list[Worker]) -> None:
    """Stop workers at once, and empty the list."""
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


@contextmanager
def _of_workers() -> Iterator[None]:
    """Give the processes that the block starts what workers have: one computing thread, no Ctrl-C, and nothing imported
    from the current directory."""
    threads = os.environ.get(THREADS) or "1"
    with _environment(THREADS, threads), _environment("PYTHONSAFEPATH", "1"), _without_ctrl_c():
        yield


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C from the processes that the block starts, from their first moment on; the parent decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # before, because its start lets Ctrl-C through again
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


def received(worker: Worker) -> ShardResult | int | str | None:
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
        importlib.import_module(TEMPLATE)
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
