"""Files as bytes, decompressed and compressed by their extension: ``.gz``, ``.zst``, ``.bz2``, ``.xz``."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO, cast

import zstandard

from dragoman.errors import DataError
from dragoman.output_file import is_live, open_output

try:
    from lzma import LZMAError as _XzError
except ImportError:  # an interpreter may have been built without it
    _XzError = EOFError

READ = 4096
"""Bytes of a zstd file read at a time: few, since each may decompress to ten thousand."""


@contextmanager
def open_bytes(path: str | Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """Open a file for reading, decompressed. Errors while reading inside the block are reported as a user's mistake.

    Raises:
        DataError: no such file, one that cannot be read, or compressed data that is damaged or truncated.
    """
    if "\0" in str(path):
        raise DataError(f"{str(path)!r}: holds a NUL, so it cannot be a file name")
    path = Path(path)
    try:
        with _OPENERS.get(path.suffix.lower(), _open_plain)(path) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, _XzError) as error:
        raise _damaged(path, error) from None
    except IsADirectoryError:
        raise DataError(f"{path}: cannot be read: it is a folder; name a file in it") from None
    except OSError as error:
        if error.errno is None and path.suffix.lower() in _OPENERS:  # bz2 reports data of another kind so
            raise _damaged(path, error) from None
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


@contextmanager
def decompressing(file: BinaryIO, name: str) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """Decompress what is read from ``file`` by the extension of ``name``; errors while reading are as in
    ``open_bytes``."""
    suffix = Path(name).suffix.lower()
    wrap = _WRAPPERS.get(suffix)
    try:
        with wrap(file) if wrap else io.BufferedReader(cast(io.RawIOBase, file)) as content:
            yield cast(io.BufferedReader, content)
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, _XzError) as error:
        raise _damaged(name, error) from None
    except OSError as error:
        if error.errno is None and wrap:
            raise _damaged(name, error) from None
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None


def _damaged(path: str | Path, error: Exception) -> DataError:
    kind = _KINDS.get(Path(path).suffix.lower(), "gzip")
    return DataError(f"{path}: damaged, or not {kind} ({error}): copy or compress it again")


def read_bytes(path: str | Path) -> bytes:
    """Return the whole content of a file, decompressed.

    Raises:
        DataError: as ``open_bytes``.
    """
    with open_bytes(path) as file:
        return file.read()


def extension(path: str | Path) -> str:
    """Return the extension in lower case, ignoring that of compression: ``.tsv`` for ``A.TSV.gz``."""
    name = str(path).lower()
    for compressed in _OPENERS:
        name = name.removesuffix(compressed)
    return Path(name).suffix


def _open_plain(path: Path) -> io.BufferedReader:
    return path.open("rb")


def _open_gzip(path: Path) -> gzip.GzipFile:
    return gzip.open(path, "rb")


def _from_bzip2(file: Path | BinaryIO) -> io.BufferedReader:
    import bz2

    return io.BufferedReader(cast(io.RawIOBase, bz2.BZ2File(file, "rb")))


def _from_xz(file: Path | BinaryIO) -> io.BufferedReader:
    import lzma

    return io.BufferedReader(cast(io.RawIOBase, lzma.LZMAFile(file, "rb")))


def _from_zstd(file: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(_Zstd(file), buffer_size=zstandard.DECOMPRESSION_RECOMMENDED_OUTPUT_SIZE)


def _open_zstd(path: Path) -> io.BufferedReader:
    return _from_zstd(path.open("rb"))


_OPENERS: dict[str, Callable[[Path], io.BufferedReader | gzip.GzipFile]] = {
    ".gz": _open_gzip,
    ".zst": _open_zstd,
    ".bz2": _from_bzip2,
    ".xz": _from_xz,
}
_WRAPPERS: dict[str, Callable[[BinaryIO], io.BufferedReader | gzip.GzipFile]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    ".zst": _from_zstd,
    ".bz2": _from_bzip2,
    ".xz": _from_xz,
}
_KINDS = {".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}


class _Zstd(io.RawIOBase):
    """Reader of all frames of a zstd file. Unlike the library's own reader it notices a truncated one."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.frame: zstandard.ZstdDecompressionObj | None = None
        self.ready = memoryview(b"")
        """Decompressed and not yet read."""
        self.waiting = b""
        """Read and not yet decompressed: the bytes after the end of a frame."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.ready:
            if not (compressed := self.waiting or self.file.read(READ)):
                if self.frame is not None:
                    raise EOFError("it is truncated")
                return 0
            if self.frame is None:
                self.frame = zstandard.ZstdDecompressor().decompressobj()
            self.ready, self.waiting = memoryview(self.frame.decompress(compressed)), b""
            if self.frame.eof:
                self.frame, self.waiting = None, self.frame.unused_data
        size = min(len(buffer), len(self.ready))
        buffer[:size], self.ready = self.ready[:size], self.ready[size:]
        return size

    def close(self) -> None:
        self.file.close()
        super().close()


# ---- writing --------------------------------------------------------------------------------------


class Writable(Protocol):
    """Anything with a ``write`` for bytes."""

    def write(self, content: bytes, /) -> int: ...


@contextmanager
def create_file(path: str | Path) -> Iterator[Writable]:
    """Open the file ``path`` that the user named for writing bytes, compressed by its extension; see ``open_output``.

    Raises:
        OutputError: it cannot be written, now or while the block writes.
    """
    with open_output(path) as file, compressing(file, path) as content:
        yield content


@contextmanager
def create_text(path: str | Path) -> Iterator[TextIO]:
    """Open a file for writing text, as ``create_file`` does for bytes: UTF-8, with ``\n`` as line end on every system.
    The reader of a pipe gets each line at once."""
    with create_file(path) as file:
        live = is_live(path)
        text = io.TextIOWrapper(cast(BinaryIO, file), encoding="utf-8", newline="", line_buffering=live)
        yield text
        text.flush()
        text.detach()


@contextmanager
def compressing(file: BinaryIO, name: str | Path) -> Iterator[Writable]:
    """Compress what is written into ``file`` by the extension of ``name``. The same bytes give the same file."""
    compressor = _COMPRESSORS.get(Path(name).suffix.lower())
    if compressor is None:
        yield file
        return
    with compressor(file) as content:
        yield content


def _gzip(file: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)


def _zstd(file: BinaryIO) -> zstandard.ZstdCompressionWriter:
    return zstandard.ZstdCompressor().stream_writer(file, closefd=False)


def _bzip2(file: BinaryIO) -> Any:
    import bz2  # here: an interpreter may have been built without it

    return bz2.BZ2File(file, "wb")


def _xz(file: BinaryIO) -> Any:
    import lzma

    return lzma.LZMAFile(file, "wb")


_COMPRESSORS: dict[str, Callable[[BinaryIO], Any]] = {".gz": _gzip, ".zst": _zstd, ".bz2": _bzip2, ".xz": _xz}
