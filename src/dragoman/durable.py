"""Atomic writes: files and folders are complete or absent, whenever the machine stops.

Everything is first written under a temporary name (``.NAME.partial``), flushed to the disk, and only then renamed to
its final name; the folder that holds it is flushed last. A crash leaves hidden names (``.NAME.partial``, ``.NAME.old``,
``.NAME.removed``), which ``sweep`` cleans up.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 16 * 2**20
"""Bytes written at a time."""


def write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, neither atomically nor flushed: for files in a ``folder``, which does both."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(file, left[:CHUNK]) :]  # a disk that is nearly full takes less than it was given
    finally:
        os.close(file)


def replace(path: Path, content: bytes) -> None:
    """Replace the content of the file ``path`` atomically: readers see the old one or the new one."""
    replace_with(path, lambda partial: write(partial, content))


def replace_with(path: Path, produce: Callable[[Path], None]) -> None:
    """Same as ``replace``, but ``produce`` writes the content to the path it is given."""
    partial = _hidden(path, f"{os.getpid()}.partial")  # two processes may write the same report
    try:
        produce(partial)
        flush(partial)
        os.rename(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush(path.parent)


def append(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Append whole lines to ``path``; they are on the disk when this returns. Several processes may append to one file.

    Where a line before them was cut off, for instance by a full disk, they begin on a line of their own.

    Args:
        content: lines with their ends.
        mode: permissions of a file that is created.
    """
    new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
    try:
        _wait_for_others(handle)
        left = memoryview(b"\n" + content if _ends_within_a_line(path) else content)
        while left:
            left = left[os.write(handle, left) :]
        if stat.S_ISREG(os.fstat(handle).st_mode):  # a pipe or a terminal cannot be flushed
            os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        flush(path.parent)


def _wait_for_others(handle: int) -> None:
    """Lock an open file until it is closed, where there are locks, so that no half-written line is taken as cut off."""
    with suppress(ImportError, OSError):
        import fcntl  # here, because Windows has none

        fcntl.flock(handle, fcntl.LOCK_EX)


def _ends_within_a_line(path: Path) -> bool:
    """Return whether the last line of a file has no end; False where that cannot be read."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)  # an OSError for an empty file
                return file.read(1) != b"\n"
    return False


def link(path: Path, target: str) -> None:
    """Point the symbolic link ``path`` to ``target`` (relative to its folder) atomically."""
    partial = _hidden(path, "partial")
    partial.unlink(missing_ok=True)
    os.symlink(target, partial)
    os.rename(partial, path)
    flush(path.parent)


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it is renamed to ``path`` when the block ends, and removed if the block fails.

    An existing folder is replaced only then. A symbolic link to a folder stays, and its target is replaced.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    partial = _hidden(path, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for inside in partial.rglob("*"):
            flush(inside)
        flush(partial)
        if path.exists():
            os.rename(path, _hidden(path, "old"))
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    flush(path.parent)
    if _hidden(path, "old").exists():
        remove(_hidden(path, "old"))


def remove(path: Path) -> None:
    """Remove a folder; it is renamed first, so that readers never see a partly removed one."""
    going = _hidden(path, "removed")
    shutil.rmtree(going, ignore_errors=True)
    os.rename(path, going)
    shutil.rmtree(going)


def sweep(path: Path) -> None:
    """Undo or complete the writes in the folder ``path`` that a crash interrupted."""
    for old in path.glob(".*.old"):
        name = path / old.name[1:].removesuffix(".old")
        if name.exists():
            remove(old)
        else:
            os.rename(old, name)  # died before the new one took its place
    for left in (*path.glob(".*.partial"), *path.glob(".*.removed")):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hidden(path: Path, state: str) -> Path:
    return path.with_name(f".{path.name.removeprefix('.')}.{state}")
