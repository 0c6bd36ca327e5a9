"""Processes of this machine that work on shards, each with one computing thread.

A worker gets a shard only when it asks for one, so that no more than one of each is in memory, and neither side waits
in a write while the other does, or while a model loads.
"""

import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import wait

from dragoman.serve.bulk.scheduler import RowsDone, ShardScheduler, ShardSupply
from dragoman.serve.bulk.shard import Shard, ShardResult, ShardWork
from dragoman.serve.bulk.worker_process import (
    READY,
    StartMethod,
    Worker,
    received,
    start_worker,
    stop_workers,
)


class LocalWorkers(ShardScheduler):
    """Worker processes of this machine."""

    def __init__(self, work: ShardWork, workers: int, method: StartMethod = "spawn"):
        self.work, self.most = work, workers
        self.method: StartMethod = method
        self.workers: list[Worker] = []

    def results(self, shards: Iterator[Shard], progress: RowsDone) -> Iterator[ShardResult]:
        supply = ShardSupply(shards)
        while True:
            self._hand_out(supply)
            busy = [worker for worker in self.workers if worker.shard is not None]
            if not busy:
                return
            for worker in self._ready(busy):
                shard, message = worker.shard, received(worker)
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
            self.workers.append(worker := start_worker(self.method))
            with suppress(OSError):  # as below
                worker.connection.send(self.work)
            self._give(worker, shard)

    def _give(self, worker: Worker, shard: Shard) -> None:
        worker.shard = shard
        if not worker.ready:
            return
        with suppress(OSError):  # it has died, which is noticed when its answer is read
            worker.connection.send(shard)

    @staticmethod
    def _ready(busy: list[Worker]) -> list[Worker]:
        ready = wait([worker.connection for worker in busy])
        return [worker for worker in busy if worker.connection in ready]

    def _bury(self, worker: Worker) -> str:
        """Forget a worker that has died; return how it did."""
        self.workers.remove(worker)
        self.lost += 1
        worker.connection.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

    def stop(self) -> None:
        stop_workers(self.workers)
