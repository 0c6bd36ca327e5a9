"""Workers of a Ray cluster: one actor for each, which loads the model once and answers shard after shard.

Shards travel to the actors and their results back, so that the machines need no common disk for the text. The run must
be found under the same path on each of them, and dragoman be installed there.
"""

import logging
import socket
from collections.abc import Iterator
from typing import Any

from dragoman.errors import ConfigError
from dragoman.serve.bulk.local import unwrapped, wrapped
from dragoman.serve.bulk.scheduler import RowsDone, ShardScheduler, ShardSupply
from dragoman.serve.bulk.shard import Shard, ShardAnswerer, ShardResult, ShardWork, finish

SECONDS = 5.0
"""Longest time that a cluster has to answer."""
LOCAL = "local"
"""Address of a cluster that is started on this machine for this command alone."""


class ShardActor:
    """Worker of a cluster; its model is loaded for its first shard."""

    def __init__(self, work: ShardWork):
        self.work = work
        self.answerer: ShardAnswerer | None = None

    def finish(self, shard: Shard) -> ShardResult | tuple[str, str]:
        """Return the result of a shard, or the error as ``local.wrapped`` writes it."""
        try:
            self.answerer = self.answerer or self.work.open()
            return finish(self.answerer, shard)
        except Exception as error:
            return wrapped(error)


def _check_reachable(address: str) -> None:
    """Check that something answers at ``host:port``: Ray itself tries for minutes, and then ends the process.

    Raises:
        ConfigError: nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # auto, local, or an address without a port
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--ray {address}: no cluster answers there: {error}") from None


class RayWorkers(ShardScheduler):
    """Actors of a Ray cluster."""

    def __init__(self, work: ShardWork, address: str, workers: int | None = None):
        """
        Args:
            address: of the cluster, as ``ray.init`` takes it; ``local`` starts one on this machine.
            workers: number of actors; None for as many as the cluster has processors.

        Raises:
            ConfigError: Ray is not installed, or there is no such cluster.
        """
        try:
            import ray
        except ImportError:
            raise ConfigError("--ray: Ray is not installed: pip install ray (the extra ray)") from None
        _check_reachable(address)
        self.ray, self.work = ray, work
        try:
            ray.init(
                address=address,
                num_cpus=workers if address == LOCAL else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
                include_dashboard=None if address != LOCAL else False,
            )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise ConfigError(f"--ray {address}: {' '.join(str(error).split())}") from None
        self.most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.idle: list[Any] = []
        self.working: dict[Any, tuple[Any, Shard]] = {}
        """Actor and shard of each result that is expected."""

    def results(self, shards: Iterator[Shard], progress: RowsDone) -> Iterator[ShardResult]:
        supply = ShardSupply(shards)
        while True:
            while len(self.working) < self.most and (shard := supply.next()) is not None:
                self._give(self.idle.pop() if self.idle else self._actor(), shard)
            if not self.working:
                return
            ready, _ = self.ray.wait(list(self.working))
            for expected in ready:
                actor, shard = self.working.pop(expected)
                try:
                    result = self.ray.get(expected)
                except self.ray.exceptions.RayActorError:
                    self.lost += 1
                    supply.give_back(shard, "as Ray reports")
                    continue
                if isinstance(result, tuple):
                    raise unwrapped(*result)
                self.idle.append(actor)
                yield result

    def _actor(self) -> Any:
        """Start a worker, with one processor and as many computing threads."""
        return self.ray.remote(num_cpus=1, max_restarts=0)(ShardActor).remote(self.work)

    def _give(self, actor: Any, shard: Shard) -> None:
        self.working[actor.finish.remote(shard)] = actor, shard

    def stop(self) -> None:
        for actor in [*self.idle, *(actor for actor, _ in self.working.values())]:
            self.ray.kill(actor)
        self.idle, self.working = [], {}
        self.ray.shutdown()
