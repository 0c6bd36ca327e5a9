"""Work on shards that needs no model: lines spelt backwards, slowly or by workers that die, as a test wants."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dragoman.errors import DataError
from dragoman.serve.bulk.job import BulkReport, check_input, run_bulk
from dragoman.serve.bulk.local import LocalWorkers
from dragoman.serve.bulk.on_ray import RayWorkers
from dragoman.serve.bulk.scheduler import ShardScheduler
from dragoman.serve.bulk.shard import Shard, ShardAnswer, ShardAnswerer, ShardProgress, ShardWork
from dragoman.text.lines import read_lines


@dataclass(frozen=True)
class Backwards(ShardWork):
    """Spells each line backwards."""

    seconds: float = 0.0
    """Time that a shard takes."""
    dies_at: int | None = None
    """Number of a shard that kills its worker."""
    once: str | None = None
    """File that is made by the worker that dies; where there is one, none dies."""
    refuses: str | None = None
    """A line that is refused."""
    shows_before: bool = False
    """Each line is followed by those before it, in its shard or before that."""
    lines_before: int = 0
    opens: str | None = None
    """Folder in which each worker writes when it began to load, which takes a second, and when it had."""

    def open(self) -> "Speller":
        if self.opens:
            began = time.monotonic()
            time.sleep(1)
            Path(self.opens, str(os.getpid())).write_text(f"{began} {time.monotonic()}")
        return Speller(self)


@dataclass(frozen=True)
class Speller(ShardAnswerer):
    work: Backwards

    def answer(self, shard: Shard, progress: ShardProgress) -> ShardAnswer:
        self.perhaps_die(shard.number)
        if self.work.refuses in shard.lines:
            raise DataError(f"row {shard.first_row + shard.lines.index(self.work.refuses)}: refused")
        time.sleep(self.work.seconds)
        remark = (f"row {shard.first_row}: first of its shard",)
        known = [*shard.before, *shard.lines]
        lines = []
        for i, line in enumerate(shard.lines, len(shard.before)):
            before = known[max(0, i - self.work.lines_before) : i] if self.work.shows_before else []
            lines.append(" ".join([line[::-1], *before]))
        return ShardAnswer(lines, remark)

    def perhaps_die(self, number: int) -> None:
        if number == self.work.dies_at and not (self.work.once and Path(self.work.once).exists()):
            if self.work.once:
                Path(self.work.once).touch()
            os.kill(os.getpid(), signal.SIGKILL)


def translate(path: str, output: str, scheduler: ShardScheduler) -> BulkReport:
    """Run a bulk job."""

    def read():
        return read_lines(path)

    with scheduler:
        return run_bulk(read, check_input(read), scheduler, output, model={"name": "backwards"}, options={})


def main(path: str, output: str, seconds: str, once: str | None = None) -> None:
    """Run a bulk job as a process that a test kills or, with a file that makes its third shard kill one worker, on
    Ray."""
    work = Backwards(float(seconds), dies_at=2 if once else None, once=once)
    print(translate(path, output, RayWorkers(work, "local", 3) if once else LocalWorkers(work, 2)))


if __name__ == "__main__":
    main(*sys.argv[1:])
