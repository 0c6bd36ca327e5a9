"""Shards: consecutive lines of a text, the unit that is translated, kept and repeated as a whole."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice, repeat

from dragoman.errors import DataError
from dragoman.text.compressed import compressing

FEWEST, MOST = 256, 4096
"""Lines of a shard. The most is what ``dragoman translate`` reads at a time, so that its batches are the same."""
SHARE = 2
"""A shard is at most half of what is left for each worker, if that is not too little."""


@dataclass(frozen=True)
class Shard:
    """Consecutive lines of a text."""

    number: int
    """Counted from 0."""
    first_row: int
    """Row of its first line, counted from 1."""
    lines: tuple[str, ...]
    before: tuple[str, ...] = ()
    """The lines before it that its answers may depend on."""
    output: str = ""
    """Name of the output, whose extension decides how its part is compressed."""

    @property
    def last_row(self) -> int:
        """Row of its last line."""
        return self.first_row + len(self.lines) - 1


@dataclass(frozen=True)
class ShardAnswer:
    """Output lines for a shard."""

    lines: list[str]
    remarks: tuple[str, ...] = ()
    """Notes for the reader, each naming its row."""
    content: str | None = None
    """Output as it is written, where it is not of lines: rows of a table may hold line ends."""


@dataclass(frozen=True)
class ShardResult:
    """Finished shard, as it is kept."""

    number: int
    content: bytes
    """Its output lines, compressed so that the contents of consecutive shards can be joined as they are."""
    remarks: tuple[str, ...] = ()


ShardProgress = Callable[[int], None]
"""Called with the number of lines of a shard that are done."""


class ShardAnswerer(ABC):
    """Loaded in each process that works."""

    @abstractmethod
    def answer(self, shard: Shard, progress: ShardProgress) -> ShardAnswer:
        """Return the output lines of a shard.

        Raises:
            DataError: a line that cannot be used; the message names its row.
        """


class ShardWork(ABC):
    """Work on shards that any process can open: it is pickled, and must be small."""

    lines_before: int = 0
    """Lines before a shard that its answers may depend on."""

    @abstractmethod
    def open(self) -> ShardAnswerer:
        """Load what the work needs."""


def shard_sizes(lines: int, workers: int) -> list[int]:
    """Return the lines of each shard of a text of this many lines.

    Shards get shorter towards the end, so that all workers end at about the same time; before, long ones are better,
    since the last batches of each are not full (guided self-scheduling, Polychronopoulos and Kuck 1987).
    """
    sizes = []
    while lines > 0:
        sizes.append(min(lines, MOST, max(FEWEST, lines // (SHARE * workers))))
        lines -= sizes[-1]
    return sizes


def shards_of(lines: Iterable[str], sizes: Iterable[int], *, before: int = 0, output: str = "") -> Iterator[Shard]:
    """Yield the shards of a text; only one is in memory at a time. Lines after the last size are shards, too."""
    remaining, earlier, row = iter(lines), deque[str](maxlen=before), 1
    for number, size in enumerate(chain(sizes, repeat(MOST))):
        if not (taken := tuple(islice(remaining, size))):
            return
        yield Shard(number, row, taken, tuple(earlier), output)
        earlier.extend(taken)
        row += len(taken)


def finish(answerer: ShardAnswerer, shard: Shard, progress: ShardProgress = lambda done: None) -> ShardResult:
    """Answer a shard and compress its output lines.

    Raises:
        DataError: as ``ShardAnswerer.answer``.
    """
    answer = answerer.answer(shard, progress)
    if answer.content is not None:
        return ShardResult(shard.number, compressed_text(answer.content, shard.output), answer.remarks)
    for line in answer.lines:
        if "\n" in line:
            raise DataError(
                f"rows {shard.first_row} to {shard.last_row}: an output holds a line end: use --format json"
            )
    return ShardResult(shard.number, packed(answer.lines, shard.output), answer.remarks)


def packed(lines: Iterable[str], output: str) -> bytes:
    """Return lines as the content of a file with the name ``output``: compressed by its extension."""
    return compressed_text("".join(f"{line}\n" for line in lines), output)


def compressed_text(text: str, output: str) -> bytes:
    """Return a text as the content of a file with the name ``output``."""
    content = BytesIO()
    with compressing(content, output) as file:
        file.write(text.encode())
    return content.getvalue()
