"""What has gone by, remembered on disk: questions about all earlier pairs, in memory that does not grow with them.

The tables are SQLite's, in a temporary file without a name, which the system removes; what is in memory is a cache of
``CACHE`` bytes. Texts are remembered by hashes of 8 bytes: among a hundred million, two are taken for each other in 1
run of 3,700.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from itertools import chain
from tempfile import TemporaryFile

from dragoman.errors import DataError
from dragoman.text.lines import AnyPair, TwoSided

CACHE = 8 * 2**20


@contextmanager
def remembering() -> Iterator[sqlite3.Connection]:
    """A memory for ``Seen`` and its like, forgotten when the block ends.

    Raises:
        DataError: the disk is full.
    """
    with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as memory:
        memory.execute("PRAGMA journal_mode = OFF")  # nobody asks what was there before
        memory.execute(f"PRAGMA cache_size = {-CACHE // 1024}")
        memory.execute("BEGIN")
        with _told(sqlite3.OperationalError):
            yield memory


def hashed(*texts: str) -> int:
    """A hash of 8 bytes, signed as SQLite likes it."""
    return int.from_bytes(blake2b("\0".join(texts).encode(), digest_size=8).digest(), "little", signed=True)


class SeenTexts:
    """Whether a key came before."""

    def __init__(self, memory: sqlite3.Connection, name: str = "seen"):
        memory.execute(f"CREATE TABLE {name} (key INTEGER PRIMARY KEY)")
        self.insert = memory.execute
        self.statement = f"INSERT OR IGNORE INTO {name} VALUES (?)"

    def before(self, key: int) -> bool:
        return self.insert(self.statement, (key,)).rowcount == 0


class SeenTranslations:
    """Which targets each source was given, and how often."""

    def __init__(self, memory: sqlite3.Connection):
        memory.execute(
            "CREATE TABLE translations (source INTEGER, target INTEGER, times INTEGER, first INTEGER, "
            "PRIMARY KEY (source, target)) WITHOUT ROWID"
        )
        self.memory, self.pairs = memory, 0

    def add(self, pair: TwoSided) -> None:
        self.pairs += 1
        self.memory.execute(
            "INSERT INTO translations VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET times = times + 1",
            (hashed(pair.source), hashed(pair.target), self.pairs),
        )

    def of(self, source: str) -> list[int]:
        """The hashes of its targets, the most frequent first, of equally frequent ones the earliest; two at most."""
        rows = self.memory.execute(
            "SELECT target FROM translations WHERE source = ? ORDER BY times DESC, first LIMIT 2", (hashed(source),)
        )
        return [target for (target,) in rows]


@contextmanager
def laid_aside(pairs: Iterable[AnyPair]) -> Iterator[Iterator[AnyPair]]:
    """All ``pairs``, read to the end at once and kept in a temporary file, to be taken from there in their order.

    They must be normalised: without tabs and line ends.

    Raises:
        DataError: the disk is full.
    """
    with TemporaryFile("w+", encoding="utf-8", newline="\n") as file:
        pairs = iter(pairs)
        if (first := next(pairs, None)) is None:
            yield iter(())
            return
        with _told(OSError):
            file.writelines("\t".join(pair.fields()) + "\n" for pair in chain([first], pairs))
            file.seek(0)
        yield (first.of(line[:-1].split("\t")) for line in file)


@contextmanager
def _told(full_disk: type[Exception]) -> Iterator[None]:
    try:
        yield
    except full_disk as error:
        raise DataError(f"temporary file: {error}: make room, or let TMPDIR name a folder that has some") from None
