"""Output files named by the user, written without replacing special files or losing content half-way.

A regular file is replaced atomically once all of it is written, so that readers see the old content or the new. The
target of a symbolic link is replaced, not the link; mode and owner are kept. Anything else (a FIFO, a terminal,
``/dev/stdout``) is opened and written to. A file that cannot be replaced (it has several hard links, is a mount point,
or its folder takes no new files) is overwritten, once the new content is complete.
"""

import errno
import io
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dragoman.durable import flush
from dragoman.errors import OutputError

CHUNK = 2**20
"""Bytes copied at a time."""
STDOUT = "-"
"""Name for standard output."""
MOST_LINKS = 40
"""Largest number of symbolic links followed from one name, as in Linux."""


def check_output_file(path: str | Path) -> None:
    """Check before any work that ``open_output`` can write to that name.

    Raises:
        OutputError: it is a folder, its folder is missing, or writing is not allowed.
    """
    path = Path(path)
    if _descriptor(path) is not None:
        return
    with _explained(path):
        found = _status(path)
        if found is None:
            _check_folder(path)
        elif stat.S_ISDIR(found.st_mode):
            raise OutputError(f"{path}: is a folder: name a file in it")
        elif stat.S_ISSOCK(found.st_mode):
            raise OutputError(f"{path}: is a socket, which cannot be opened: name a file or a FIFO")
        elif not os.access(path, os.W_OK):
            raise OutputError(f"{path}: cannot be written to: it is read-only: allow it (chmod u+w), or name another")


def check_output_folder(path: str | Path) -> None:
    """Check before any work that a folder ``path`` can be created, with its parents.

    Raises:
        OutputError: a parent is a file, or is read-only.
    """
    path = Path(path)
    with _explained(path):
        above = Path(os.path.realpath(path)).parent
        while not os.path.lexists(above):
            above = above.parent
        if not above.is_dir():
            raise OutputError(f"{path}: {above} is a file, not a folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise OutputError(f"{path}: the folder {above} is read-only: allow it (chmod u+w), or name another")


def _check_folder(path: Path) -> None:
    """Check the folder of a ``path`` that does not exist, or is a link to nothing."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.exists():
        raise OutputError(f"{path}: there is no folder {folder if path.is_symlink() else path.parent}: make it first")
    if not folder.is_dir():
        raise OutputError(f"{path}: {path.parent} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {path.parent} is read-only: allow it (chmod u+w), or name another")


def is_live(path: str | Path) -> bool:
    """Return whether ``path`` may be read while it is being written: it is not a regular file."""
    path = Path(path)
    with suppress(OSError):
        number = _descriptor(path)
        found = os.fstat(number) if number is not None else os.stat(path)
        return not stat.S_ISREG(found.st_mode)
    return False


def is_open_file(path: str | Path) -> bool:
    """Return whether ``path`` names a file that this process has open, such as ``/dev/stdout`` or ``-``."""
    return _descriptor(Path(path)) is not None


@contextmanager
def open_output(path: str | Path) -> Iterator[BinaryIO]:
    """Open the file ``path`` for bytes; it has the new content when the block ends, and the old one if the block fails.

    A file that is not regular receives bytes as they are flushed. ``-`` is standard output.

    Raises:
        OutputError: same as ``check_output_file``, or the disk is full; also from any write in the block.
    """
    path = Path(path)
    check_output_file(path)
    number = _descriptor(path)
    if number is not None:
        sys.stdout.flush()  # what was printed before comes before
        with _writing(os.dup(number), path) as file:
            yield file
        return
    with _explained(path):
        found = _status(path)
    if found is not None and not stat.S_ISREG(found.st_mode):
        with _explained(path):  # never with O_CREAT: the kernel refuses that for other people's FIFOs in /tmp
            handle = os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
        with _writing(handle, path) as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    with _replacing(target, path, found) if _replaceable(target, found) else _overwriting(target, path) as file:
        yield file


# ---- regular files --------------------------------------------------------------------------------


def _replaceable(target: Path, found: os.stat_result | None) -> bool:
    """Return whether a new file may replace the one there: same owner, no other links, writable folder."""
    if found is None:
        return True
    if found.st_nlink > 1 or os.path.ismount(target) or not os.access(target.parent, os.W_OK | os.X_OK):
        return False
    user = os.geteuid() if hasattr(os, "geteuid") else found.st_uid
    return user in (0, found.st_uid)


@contextmanager
def _replacing(target: Path, path: Path, found: os.stat_result | None) -> Iterator[BinaryIO]:
    partial = target.with_name(f".{_short_name(target)}.{os.getpid()}.partial")
    try:
        with _explained(path):
            # a file that others may not read is hidden from them from its first byte on
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if found is None else 0o600)
        with _writing(handle, path) as file:
            if found is not None:
                _take_after(file.fileno(), found)
            yield file
        with _explained(path):
            flush(partial)
            try:
                os.replace(partial, target)
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.EXDEV):
                    raise
                with partial.open("rb") as content:  # mounted by itself, as containers do with single files
                    _overwrite(target, content)
                partial.unlink()
            flush(target.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _short_name(target: Path) -> str:
    return os.fsdecode(os.fsencode(target.name.removeprefix("."))[:200])  # names have 255 bytes at most


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that were killed have left of an output: unfinished files of its name beside it."""
    target = Path(os.path.realpath(path))
    named = re.compile(rf"\.{re.escape(_short_name(target))}\.(\d+)\.partial")
    for left in target.parent.iterdir():
        if (found := named.fullmatch(left.name)) and not _is_running(int(found[1])):
            with suppress(OSError):
                left.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _take_after(handle: int, found: os.stat_result) -> None:
    """Give an open file the owner and the mode of another."""
    if not hasattr(os, "fchown"):
        return
    with suppress(PermissionError):  # a group that one is not in
        os.fchown(handle, found.st_uid, found.st_gid)
    os.fchmod(handle, stat.S_IMODE(found.st_mode))


@contextmanager
def _overwriting(target: Path, path: Path) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as content:
        with _writing(os.dup(content.fileno()), path) as file:
            yield file
        content.seek(0)
        with _explained(path):
            _overwrite(target, content)


def _overwrite(target: Path, content: BinaryIO) -> None:
    """Overwrite an existing file with ``content``; if the disk has no room for it, the old content stays."""
    with target.open("r+b") as file:
        before, size = os.fstat(file.fileno()).st_size, os.fstat(content.fileno()).st_size
        if size > before and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), before, size - before)
            except OSError as error:
                file.truncate(before)
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        shutil.copyfileobj(content, file, CHUNK)
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())


# ---- names and their errors -----------------------------------------------------------------------


def _status(path: Path) -> os.stat_result | None:
    """Return the status of the file that ``path`` resolves to; None where there is none."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


_OPEN_FILE = re.compile(r"/(?:dev|proc/(?:self|thread-self))/fd/(\d+)")


def _descriptor(path: Path) -> int | None:
    """Return the number of the open file behind a name such as ``/dev/stdout``; None for other names.

    Opened again, such a file would start at its beginning, and overwrite the content that a shell's ``>>`` appends to.
    """
    name = os.fspath(path)
    if name == STDOUT:
        return 1
    for _ in range(MOST_LINKS):
        if found := _OPEN_FILE.fullmatch(name):
            return int(found[1]) if _is_open(int(found[1])) else None
        if not os.path.islink(name):
            return None
        name = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(name)))
    return None


def _is_open(number: int) -> bool:
    with suppress(OSError, OverflowError):
        os.fstat(number)
        return True
    return False


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of the system into an OutputError for ``path``."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader has closed its end: not a mistake
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(name: str | Path, error: OSError) -> OutputError:
    """Return the error for ``name``, to which the system would not write."""
    remedy = ": make room, or write elsewhere" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return OutputError(f"{name}: cannot be written to: {error.strerror or error}{remedy}")


@contextmanager
def _writing(handle: int, path: Path) -> Iterator[BinaryIO]:
    file = io.BufferedWriter(RawOutput(handle, path))
    try:
        yield file
        file.flush()
    finally:
        with suppress(OutputError, OSError):  # a failed flush has been reported already
            file.close()


class RawOutput(io.RawIOBase):
    """Open file whose errors name it, to distinguish them from those of files read at the same time."""

    def __init__(self, handle: int, name: str | Path):
        self.handle, self.path = handle, name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.handle

    def isatty(self) -> bool:
        return os.isatty(self.handle)

    def write(self, content, /) -> int:
        try:
            return os.write(self.handle, content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self.handle)
