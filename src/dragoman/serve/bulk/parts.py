"""Parts: the finished shards of an output, in a folder beside it, until all of them are joined into it.

    out.txt.zst.parts/
      job.json        what is translated, by what and how: a resumed job must agree with it; and the shards
      journal.jsonl   a line for each finished shard, flushed to the disk after its part
      000000 000001   output of each finished shard, compressed as the output will be

A part is complete or absent, and counts only if the journal has its hash. Whenever the process dies, the same
command goes on with the shards that the journal does not have.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dragoman import durable
from dragoman.config import differences
from dragoman.errors import ConfigError, OutputError
from dragoman.output_file import CHUNK, cannot_write, open_output, remove_leftovers
from dragoman.serve.bulk.shard import ShardResult, packed

Assemble = Callable[[BinaryIO, Iterable[bytes]], None]
"""Function that writes an output from the contents of its parts."""
JOB, JOURNAL = "job.json", "journal.jsonl"
FORMAT = 2


class OutputParts:
    """The folder ``OUTPUT.parts``, held by this process."""

    def __init__(self, output: Path, path: Path):
        self.output, self.path = output, path
        self.finished: dict[int, str] = {}
        """Hash of each finished part."""

    def begin(self, job: Mapping[str, Any], sizes: list[int], *, restart: bool = False) -> list[int]:
        """Begin a job, or go on with the one that was begun here.

        Args:
            job: what a job that goes on must agree with.
            sizes: lines of each shard, for a job that begins.

        Returns:
            The lines of each shard of the job: those of its beginning.

        Raises:
            ConfigError: it was begun with another input, model or options; the message names the first difference.
            OutputError: the folder cannot be written to.
        """
        wanted = json.loads(json.dumps(dict(job) | {"shards": sizes, "format": FORMAT}))
        before = None if restart else self._job()
        if before is None:
            self._empty()
            with _explained(self.path):
                durable.replace(self.path / JOB, (json.dumps(wanted, indent=1, ensure_ascii=False) + "\n").encode())
            return sizes
        if before.get("format") != FORMAT:
            raise ConfigError(
                f"{self.path}: begun by another version of dragoman: end it with that one, or start anew with --restart"
            )
        if changed := differences(before, wanted | {"shards": before.get("shards")}):
            raise ConfigError(f"{self.path}: {_difference(*changed[0])}: {_AGAIN}")
        if not _divides(before.get("shards"), sum(sizes)):
            raise self._damaged()
        entries = [entry for entry in self._journal() if self._is_intact(entry["shard"], entry["sha256"])]
        self.finished = {entry["shard"]: entry["sha256"] for entry in entries}
        with _explained(self.path):  # without a last line that a crash has truncated
            durable.replace(self.path / JOURNAL, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        return before["shards"]

    def add(self, result: ShardResult) -> None:
        """Keep a finished shard; it is on the disk when this returns.

        Raises:
            OutputError: there is no room for it.
        """
        digest = hashlib.sha256(result.content).hexdigest()
        with _explained(self.path):
            durable.replace(self.part(result.number), result.content)
            entry = {"shard": result.number, "sha256": digest}
            durable.append(self.path / JOURNAL, (json.dumps(entry) + "\n").encode())
        self.finished[result.number] = digest

    def join(self, shards: int, assemble: Assemble | None = None) -> None:
        """Write the output, all or nothing, and remove the folder.

        Args:
            assemble: writes the output from the contents of the parts; None where they follow one another as they are.

        Raises:
            OutputError: a part was damaged since it was written, or the output cannot be written.
        """
        remove_leftovers(self.output)  # of a process that was killed while it joined them
        with open_output(self.output) as file:
            if assemble is not None:
                assemble(file, self._contents(shards))
            elif not shards:
                file.write(packed([], str(self.output)))
            else:
                for content in self._contents(shards):
                    file.write(content)
        with _explained(self.path):
            durable.remove(self.path)

    def _contents(self, shards: int) -> Iterator[bytes]:
        """Yield the contents of all parts, in pieces, and check each part."""
        for number in range(shards):
            digest = hashlib.sha256()
            with self.part(number).open("rb") as part:
                while content := part.read(CHUNK):
                    digest.update(content)
                    yield content
            if digest.hexdigest() != self.finished[number]:
                raise OutputError(f"{self.part(number)}: damaged: run the same command again, which makes it anew")

    def part(self, number: int) -> Path:
        """Return the file of a part."""
        return self.path / f"{number:06d}"

    def _job(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.path / JOB).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise self._damaged()
        return found

    def _damaged(self) -> ConfigError:
        return ConfigError(f"{self.path / JOB}: damaged: start anew with --restart")

    def _journal(self) -> Iterator[dict[str, Any]]:
        try:
            lines = (self.path / JOURNAL).read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield {"shard": int((entry := json.loads(line))["shard"]), "sha256": str(entry["sha256"])}
            except (ValueError, KeyError, TypeError):  # damaged: its shard is made again
                continue

    def _is_intact(self, number: int, digest: str) -> bool:
        try:
            with self.part(number).open("rb") as part:
                return hashlib.file_digest(part, "sha256").hexdigest() == digest
        except OSError:
            return False

    def _empty(self) -> None:
        """Remove what an earlier job has left; its description goes first."""
        self.finished = {}
        with _explained(self.path):
            for name in (JOB, JOURNAL):
                (self.path / name).unlink(missing_ok=True)
            for left in self.path.iterdir():
                if left.name != LOCK and left.is_file():
                    left.unlink()


def _divides(sizes: Any, lines: int) -> bool:
    """Return whether these are the lines of shards of a text of so many."""
    whole = isinstance(sizes, list) and all(isinstance(size, int) and size > 0 for size in sizes)
    return whole and sum(sizes) == lines


LOCK = "lock"


@contextmanager
def open_parts(output: str | Path) -> Iterator[OutputParts]:
    """Open the parts of ``output`` for this process alone, until the block ends.

    Raises:
        OutputError: the folder cannot be made.
        ConfigError: another process is writing there, or something else has the name of the folder.
    """
    path = Path(f"{output}.parts")
    if path.exists() and not path.is_dir():
        raise ConfigError(
            f"{path}: is a file, and finished parts are to be kept in a folder of this name: move it away"
        )
    with _explained(path):
        path.mkdir(exist_ok=True)
        handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _claim(handle, path)
        parts = OutputParts(Path(output), path)
        try:
            yield parts
        finally:
            if path.is_dir() and {left.name for left in path.iterdir()} <= {LOCK, JOB, JOURNAL}:  # nothing is finished
                durable.remove(path)
    finally:
        os.close(handle)


def _claim(handle: int, path: Path) -> None:
    try:
        import fcntl  # here, because Windows has none, and the rest works there
    except ImportError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{path}: another process is writing there: wait for it, or stop it first") from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None


_AGAIN = "give the same again, or start anew with --restart"


def _difference(where: str, before: Any, now: Any) -> str:
    if where.startswith("input."):
        return f"the input has changed since this was begun ({where.removeprefix('input.')} was {before}, is {now})"
    if where.startswith("model."):
        return f"begun with another model ({where.removeprefix('model.')} was {before}, is {now})"
    return f"begun with {where.removeprefix('options.')} {before}, and now it is {now}"
