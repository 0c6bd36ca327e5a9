"""The processes that train together: how they find one another, agree, and leave.

torchrun or ``dragoman train --processes`` (``launch.py``) starts them. The first one (rank 0) reads, prepares, writes
and speaks; what it decides it tells the others, so a mistake is told once. Whatever depends on signals, clocks or
rounding is agreed on before it is acted on, because all of them must do the same steps.
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
from dragoman.train.distributed.launch import MEETING

TIMEOUT = "DRAGOMAN_TIMEOUT"
"""In the environment: seconds that processes wait for one that is alive and does not answer, 600 if not set."""
_TOLD = "told"
_SIGNS = ("gloo", "NCCL", "nccl", "Connection closed by peer", "Connection reset by peer", "Timed out waiting")
"""What the group's errors have in their texts: on a CPU they are plain RuntimeErrors."""


class SingleProcess:
    """One process, which has nobody to wait for. ``ProcessGroup`` do the same together."""

    rank, count = 0, 1
    option = ""
    """What to add to a command that is to start as many."""

    @property
    def first(self) -> bool:
        """The one that reads, prepares, writes and speaks."""
        return self.rank == 0

    def device(self, wanted: Device) -> torch.device:
        """What this process computes on.

        Raises:
            ConfigError: a GPU is asked for and there is none for this process.
        """
        return choose_device(wanted)

    def largest(self, number: int) -> int:
        """Of what all processes say."""
        return number

    def of_first(self, number: float) -> float:
        """What the first process says."""
        return number

    def publish(self, what: str, text: str = "") -> None:
        """Say something that the others ``hear``, now or later."""

    def wait_for(self, what: str) -> str:
        """Wait until the first process ``tell``s it.

        Raises:
            ProcessLost: it leaves instead.
        """
        raise AssertionError("there is nobody to hear")

    def lost(self, error: Exception) -> bool:
        """Whether ``error`` says that another process is gone."""
        return False

    def loss(self, where: str) -> ProcessLost:
        """What to raise then; ``where`` says how to go on."""
        raise AssertionError("there is nobody to lose")


SINGLE_PROCESS = SingleProcess()


class ProcessGroup(SingleProcess):
    """This process, one of ``count`` in torch.distributed's group."""

    def __init__(self, store: Any, rank: int, count: int):
        self.store, self.rank, self.count = store, rank, count
        self.local = int(os.environ.get("LOCAL_RANK", rank))
        self.option = f" --processes {count}" if MEETING in os.environ else ""

    def device(self, wanted: Device) -> torch.device:
        device = choose_device(wanted)
        if device.type == "cpu":
            return device
        here, there = int(os.environ.get("LOCAL_WORLD_SIZE", self.count)), torch.cuda.device_count()
        if here > there:
            gpus = f"{there} GPU{'s' if there != 1 else ''}"
            raise ConfigError(f"{here} processes, but there are {gpus}: start {there}, or use train.device=cpu")
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def largest(self, number: int) -> int:
        said = torch.tensor(number)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return int(said)

    def of_first(self, number: float) -> float:
        said = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(said, 0)
        return said.item()

    def publish(self, what: str, text: str = "") -> None:
        self.store.set(what, text or " ")

    def wait_for(self, what: str) -> str:
        while not self.store.check([what]):  # not ``get``: preparing may take longer than any timeout
            if self.store.check([_TOLD]):
                raise ProcessLost("another process has left", reported_elsewhere=True)
            time.sleep(0.05)
        return self.store.get(what).decode().strip()

    def lost(self, error: Exception) -> bool:
        text = str(error)
        return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(s in text for s in _SIGNS))

    def loss(self, where: str) -> ProcessLost:
        return ProcessLost(f"one of {self.count} processes is gone or does not answer: {where}")

    def speaks(self) -> bool:
        """Whether this process is the first that leaves: it says why, and the others leave without a word."""
        try:
            return self.store.add(_TOLD, 1) == 1
        except RuntimeError:  # what the processes told one another went with the first of them
            return True


@contextlib.contextmanager
def join_group() -> Iterator[SingleProcess]:
    """The processes that torchrun or ``--processes`` started, or this one alone.

    Raises:
        ConfigError: they cannot find one another.
    """
    if (count := int(os.environ.get("WORLD_SIZE", "1"))) == 1:
        yield SingleProcess()
        return
    group = _join(int(os.environ.get("RANK", "0")), count)
    try:
        yield group
    except UserError as mistake:
        if not group.speaks():
            raise ProcessLost(str(mistake), reported_elsewhere=True) from mistake
        raise
    except BaseException:
        group.speaks()
        raise
    finally:
        dist.destroy_process_group()


def _join(rank: int, count: int) -> ProcessGroup:
    timeout = timedelta(seconds=float(os.environ.get(TIMEOUT, "600")))
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
            f"process {rank} of {count} does not find the others{where} ({reason}): see that all of them are started, "
            "and that the address is free and can be reached"
        ) from None
    return ProcessGroup(PrefixStore("dragoman", store), rank, count)


def _meet(rank: int, count: int, timeout: timedelta) -> Any:
    """Where the processes leave word for one another: a file that ``launch`` made, or torchrun's address."""
    if MEETING in os.environ:
        return FileStore(os.environ[MEETING], count)
    store, _, _ = next(rendezvous("env://", rank, count, timeout=timeout))
    store.set_timeout(timeout)
    return store
