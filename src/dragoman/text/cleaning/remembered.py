"""Tables on disk of the pairs seen so far, so that memory does not grow with their number.

The tables are SQLite's, in a temporary file without a name, which the system removes; memory holds a cache of ``CACHE``
bytes. Texts are stored as hashes of 8 bytes: among a hundred million, two collide in 1 run of 3,700.
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
def temporary_database() -> Iterator[sqlite3.Connection]:
    """Open a temporary database for ``SeenTexts`` and the like, removed when the block ends.

    Raises:
        DataError: the disk is full.
    """
    with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as memory:
        memory.execute("PRAGMA journal_mode = OFF")  # nothing is ever rolled back
        memory.execute(f"PRAGMA cache_size = {-CACHE // 1024}")
        memory.execute("BEGIN")
        with _reporting_full_disk(sqlite3.OperationalError):
            yield memory


def text_hash(*texts: str) -> int:
    """Return a hash of 8 bytes, signed, as SQLite's integers are."""
    return int.from_bytes(blake2b("\0".join(texts).encode(), digest_size=8).digest(), "little", signed=True)


class SeenTexts:
    """Set of the keys seen so far."""

    def __init__(self, memory: sqlite3.Connection, name: str = "seen"):
        memory.execute(f"CREATE TABLE {name} (key INTEGER PRIMARY KEY)")
        self.insert = memory.execute
        self.statement = f"INSERT OR IGNORE INTO {name} VALUES (?)"

    def seen_before(self, key: int) -> bool:
        """Add a key. Return True if it was there already."""
        return self.insert(self.statement, (key,)).rowcount == 0


class SeenTranslations:
    """Targets of each source, with their counts."""

    def __init__(self, memory: sqlite3.Connection):
        memory.execute(
            "CREATE TABLE translations (source INTEGER, target INTEGER, times INTEGER, first INTEGER, "
            "PRIMARY KEY (source, target)) WITHOUT ROWID"
        )
        self.memory, self.pairs = memory, 0

    def add(self, pair: TwoSided) -> None:
        """Count a pair."""
        self.pairs += 1
        self.memory.execute(
            "INSERT INTO translations VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET times = times + 1",
            (text_hash(pair.source), text_hash(pair.target), self.pairs),
        )

    def targets_of(self, source: str) -> list[int]:
        """Return the hashes of a source's targets, most frequent first, the earliest of equally frequent ones; at most
        two."""
        rows = self.memory.execute(
            "SELECT target FROM translations WHERE source = ? ORDER BY times DESC, first LIMIT 2", (text_hash(source),)
        )
        return [target for (target,) in rows]


@contextmanager
def spooled(pairs: Iterable[AnyPair]) -> Iterator[Iterator[AnyPair]]:
    """Read all ``pairs`` into a temporary file at once, and yield an iterator that reads them back in order.

    They must be normalised: without tabs and line ends.

    Raises:
        DataError: the disk is full.
    """
    with TemporaryFile("w+", encoding="utf-8", newline="\n") as file:
        pairs = iter(pairs)
        if (first := next(pairs, None)) is None:
            yield iter(())
            return
        with _reporting_full_disk(OSError):
            file.writelines("\t".join(pair.fields()) + "\n" for pair in chain([first], pairs))
            file.seek(0)
        yield (first.from_fields(line[:-1].split("\t")) for line in file)


@contextmanager
def _reporting_full_disk(full_disk: type[Exception]) -> Iterator[None]:
    try:
        yield
    except full_disk as error:
        raise DataError(f"temporary file: {error}: make room, or let TMPDIR name a folder that has some") from None
