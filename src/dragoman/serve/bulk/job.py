"""Bulk job: the input is read and checked once, its shards are answered by workers, and their parts are joined."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dragoman.errors import DataError
from dragoman.serve.bulk.parts import Assemble, OutputParts, open_parts
from dragoman.serve.bulk.scheduler import ShardScheduler
from dragoman.serve.bulk.shard import Shard, ShardResult, shard_sizes, shards_of

READ = 4096
"""Lines hashed at a time."""

ReadLines = Callable[[], Iterable[str]]
"""Opens the input and reads its lines from the first on; called twice."""
LinesDone = Callable[[int, int], None]
"""Called with the number of lines that are done, and of all."""


@dataclass(frozen=True)
class CheckedInput:
    """An input that has been read to its end."""

    lines: int
    sha256: str


@dataclass(frozen=True)
class BulkReport:
    """Result of a bulk job."""

    lines: int
    """Lines of the input."""
    resumed: int
    """Lines that an earlier process had done."""
    seconds: float
    lost: int
    """Workers that died and were replaced."""


def check_input(read: ReadLines, progress: Callable[[int], None] = lambda lines: None) -> CheckedInput:
    """Read the input once: count its lines, and find every mistake before anything is translated.

    Raises:
        DataError: a line that is no text; the message names it.
    """
    digest, count, lines = hashlib.sha256(), 0, iter(read())
    while some := list(islice(lines, READ)):
        digest.update(_spelt(some))
        count += len(some)
        progress(count)
    return CheckedInput(count, digest.hexdigest())


def _spelt(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def run_bulk(
    read: ReadLines,
    checked: CheckedInput,
    scheduler: ShardScheduler,
    output: str | Path,
    *,
    model: Mapping[str, Any],
    options: Mapping[str, Any],
    before: int = 0,
    restart: bool = False,
    assemble: Assemble | None = None,
    progress: LinesDone = lambda done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> BulkReport:
    """Answer every line of an input, and write the answers in their order: one output line each, if the work does so.

    A process that is killed loses at most the shards that were being worked on; the same call goes on with them. The
    output appears at the end, all of it at once.

    Args:
        read: opens the input.
        checked: what ``check_input`` found there.
        scheduler: who works.
        output: file to write, compressed by its extension.
        model: identity of the model: a resumed job must have the same.
        options: what else the answers depend on, in the same way.
        before: lines before a shard that its answers may depend on.
        restart: forget what an earlier process has done.
        assemble: see ``OutputParts.join``.
        progress: called with the lines done and their number.
        remark: called with each note for the reader.

    Raises:
        ConfigError: the job was begun with another input, model or options, and is not restarted.
        DataError: the input has changed since it was checked, or a line cannot be translated.
        OutputError: the output cannot be written.
        ProcessLost: workers die again and again.
    """
    began = time.monotonic()
    job = {"input": {"lines": checked.lines, "sha256": checked.sha256}, "model": dict(model), "options": dict(options)}
    with open_parts(output) as parts:
        sizes = parts.begin(job, shard_sizes(checked.lines, scheduler.most), restart=restart)
        counted = _DoneLines(sizes, parts.finished, progress)
        remarks, resumed = _OrderedRemarks(parts.finished, remark), counted.done()
        for result in scheduler.results(_unfinished(read, checked, parts, sizes, before), counted.under_way):
            parts.add(result)
            counted.finish(result.number)
            remarks.add(result)
        parts.join(len(sizes), assemble)
    return BulkReport(checked.lines, resumed, time.monotonic() - began, scheduler.lost)


def _unfinished(
    read: ReadLines, checked: CheckedInput, parts: OutputParts, sizes: Sequence[int], before: int
) -> Iterator[Shard]:
    """Yield the shards that are not finished; at the end, check that the input was still the same."""
    digest = hashlib.sha256()
    for shard in shards_of(read(), sizes, before=before, output=str(parts.output)):
        digest.update(_spelt(shard.lines))
        if shard.number not in parts.finished:
            yield shard
    if digest.hexdigest() != checked.sha256:
        raise DataError("the input changed while it was translated: run the same command again with --restart")


class _OrderedRemarks:
    """Passes the remarks of results on in the order of the lines, each as soon as those before it are known."""

    def __init__(self, finished: Iterable[int], remark: Callable[[str], None]):
        self.waiting: dict[int, tuple[str, ...]] = dict.fromkeys(finished, ())
        self.next, self.remark = 0, remark

    def add(self, result: ShardResult) -> None:
        self.waiting[result.number] = result.remarks
        while self.next in self.waiting:
            for text in self.waiting.pop(self.next):
                self.remark(text)
            self.next += 1


class _DoneLines:
    """Counts lines that are done: those of finished shards, and of others as far as their workers report."""

    def __init__(self, sizes: Sequence[int], finished: Iterable[int], progress: LinesDone):
        self.sizes, self.lines, self.progress = sizes, sum(sizes), progress
        self.partial: dict[int, int] = {}
        self.finished = sum(map(self.length, finished))
        progress(self.finished, self.lines)

    def length(self, number: int) -> int:
        return self.sizes[number] if number < len(self.sizes) else 0  # of an input that has grown

    def done(self) -> int:
        return self.finished + sum(self.partial.values())

    def under_way(self, number: int, lines: int) -> None:
        self.partial[number] = max(self.partial.get(number, 0), min(lines, self.length(number)))
        self.progress(self.done(), self.lines)

    def finish(self, number: int) -> None:
        self.partial.pop(number, None)
        self.finished += self.length(number)
        self.progress(self.done(), self.lines)
