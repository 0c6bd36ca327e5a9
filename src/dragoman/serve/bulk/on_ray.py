"""Workers of a Ray cluster: one actor for each, which loads the model once and answers shard after shard.

Shards travel to the actors and their results back, so that the machines need no common disk for the text. The run must
be found under the same path on each of them, and dragoman be installed there.
"""

from collections.abc import Iterator
from typing import Any

from dragoman.cluster import connect
from dragoman.serve.bulk.scheduler import RowsDone, ShardScheduler, ShardSupply
from dragoman.serve.bulk.shard import Shard, ShardAnswerer, ShardResult, ShardWork, finish
from dragoman.serve.bulk.worker_process import unwrapped, wrapped


class ShardActor:
    """Worker of a cluster; its model is loaded for its first shard."""

    def __init__(self, work: ShardWork):
        self.work = work
        self.answerer: ShardAnswerer | None = None

    def finish(self, shard: Shard) -> ShardResult | tuple[str, str]:
        """Return the result of a shard, or the error as ``worker_process.wrapped`` writes it."""
        try:
            self.answerer = self.answerer or self.work.open()
            return finish(self.answerer, shard)
        except Exception as error:
            return wrapped(error)


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
        self.work = work
        self.ray, self.most = connect(address, workers)
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
