"""Process group for distributed training: how processes find one another, agree, and leave.

torchrun or ``dragoman train --processes`` (``launch.py``) starts them. The first process (rank 0) reads, prepares,
writes and reports; it publishes its decisions to the others, so a mistake is reported once. Anything that depends on
signals, clocks or rounding is agreed on before it is acted on, because all processes must make the same steps.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore, PrefixStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from dragoman.errors import ConfigError, ProcessLost, UserError
from dragoman.machine import Device, choose_device
from dragoman.train.distributed.launch import LEFT, MEETING, lost_mark, timeout_seconds

_ERROR_CLAIMED = "told"
_SIGNS = ("gloo", "NCCL", "nccl", "Connection closed by peer", "Connection reset by peer", "Timed out waiting")
"""Substrings of the process group's error messages: on a CPU they are plain RuntimeErrors."""


class SingleProcess:
    """Group of one process, which never waits. ``ProcessGroup`` does the same with several."""

    rank, count, local_count = 0, 1, 1
    option = ""
    """Command-line option that starts the same number of processes again."""

    @property
    def first(self) -> bool:
        """True in the process that reads, prepares, writes and reports."""
        return self.rank == 0

    def device(self, wanted: Device) -> torch.device:
        """Return the device that this process computes on.

        Raises:
            ConfigError: a GPU is asked for and there is none for this process.
        """
        return choose_device(wanted)

    def all_reduce_max(self, number: int) -> int:
        """Return the largest ``number`` over all processes."""
        return number

    def broadcast(self, number: float) -> float:
        """Return the first process's ``number``."""
        return number

    def publish(self, what: str, text: str = "") -> None:
        """Publish ``text`` under a key; the others read it with ``wait_for``, now or later."""

    def wait_for(self, what: str) -> str:
        """Wait until the first process publishes this key and return the text.

        Raises:
            ProcessLost: another process leaves instead.
        """
        raise AssertionError("a single process never waits for another")

    def is_process_lost(self, error: Exception) -> bool:
        """Return True if ``error`` means that another process is gone."""
        return False

    def process_lost_error(self, where: str) -> ProcessLost:
        """Return the error to raise then; ``where`` tells the user how to continue."""
        raise AssertionError("a single process cannot lose another")


SINGLE_PROCESS = SingleProcess()


class ProcessGroup(SingleProcess):
    """Group of torch.distributed, seen from this process, one of ``count``."""

    def __init__(self, store: Any, rank: int, count: int):
        self.store, self.rank, self.count = store, rank, count
        self.local = int(os.environ.get("LOCAL_RANK", rank))
        self.local_count = int(os.environ.get("LOCAL_WORLD_SIZE", count))
        self.option = f" --processes {count}" if MEETING in os.environ else ""

    def device(self, wanted: Device) -> torch.device:
        device = choose_device(wanted)
        if device.type == "cpu":
            return device
        if self.local_count > (there := torch.cuda.device_count()):
            gpus = f"{there} GPU{'s' if there != 1 else ''}"
            raise ConfigError(
                f"{self.local_count} processes, but there are {gpus}: start {there}, or use train.device=cpu"
            )
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def all_reduce_max(self, number: int) -> int:
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def broadcast(self, number: float) -> float:
        value = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(value, 0)
        return value.item()

    def publish(self, what: str, text: str = "") -> None:
        self.store.set(what, text or " ")

    def wait_for(self, what: str) -> str:
        while not self.store.check([what]):  # not ``get``: preparing may take longer than any timeout
            if self.store.check([_ERROR_CLAIMED]):
                raise ProcessLost("another process has exited", reported_elsewhere=True)
            if MEETING in os.environ and lost_mark(os.environ[MEETING]).exists():  # killed, without a word
                raise ProcessLost("another process was killed", reported_elsewhere=True, exit_code=LEFT)
            time.sleep(0.05)
        return self.store.get(what).decode().strip()

    def is_process_lost(self, error: Exception) -> bool:
        text = str(error)
        return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(s in text for s in _SIGNS))

    def process_lost_error(self, where: str) -> ProcessLost:
        return ProcessLost(f"one of {self.count} processes is gone or does not answer: {where}")

    def claim_error_report(self) -> bool:
        """Return True in the first process that fails: it reports the error, and the others exit silently."""
        try:
            return self.store.add(_ERROR_CLAIMED, 1) == 1
        except RuntimeError:  # the store went away with the first process
            return True


@contextlib.contextmanager
def join_group() -> Iterator[SingleProcess]:
    """Join the process group that torchrun or ``--processes`` started; yield a group of one if there is none.

    Raises:
        ConfigError: the processes cannot find one another.
    """
    if (count := int(os.environ.get("WORLD_SIZE", "1"))) == 1:
        yield SingleProcess()
        return
    group = _join(int(os.environ.get("RANK", "0")), count)
    try:
        yield group
    except UserError as mistake:
        if isinstance(mistake, ProcessLost) and mistake.reported_elsewhere:
            raise
        if not group.claim_error_report():
            raise ProcessLost(str(mistake), reported_elsewhere=True) from mistake
        raise
    except BaseException:
        group.claim_error_report()
        raise
    finally:
        dist.destroy_process_group()


def _join(rank: int, count: int) -> ProcessGroup:
    timeout = timedelta(seconds=timeout_seconds())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store = _meet(rank, count, timeout)
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=count, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        where = "" if MEETING in os.environ else f" at {address}"
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"process {rank} of {count} cannot find the others{where} ({reason}): check that all of them are started, "
            "and that the address is free and can be reached"
        ) from None
    return ProcessGroup(PrefixStore("dragoman", store), rank, count)


def _meet(rank: int, count: int, timeout: timedelta) -> Any:
    """Return the store in which processes publish keys: a file that ``launch`` made, or torchrun's address."""
    if MEETING in os.environ:
        return FileStore(os.environ[MEETING], count)
    store, _, _ = next(rendezvous("env://", rank, count, timeout=timeout))
    store.set_timeout(timeout)
    return store
