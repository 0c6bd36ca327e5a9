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
"""Bytes of a compressed file read at a time."""
DECOMPRESSED = zstandard.DECOMPRESSION_RECOMMENDED_OUTPUT_SIZE
"""Most bytes that are decompressed at a time: a small file may hold gigabytes."""
ZSTD_READ = 256
"""Bytes of a zstd file decompressed at a time, which become 8 MB at most: its library has no limit for the result."""
WINDOW = 2**31
"""The largest window of a zstd file that is read, in bytes: what ``zstd --long=31`` writes."""


@contextmanager
def open_bytes(path: str | Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, decompressed. Errors while reading inside the block are reported as a user's mistake.

    Raises:
        DataError: no such file, one that cannot be read, or compressed data that is damaged or truncated.
    """
    if "\0" in str(path):
        raise DataError(f"{str(path)!r}: holds a NUL, so it cannot be a file name")
    path = Path(path)
    wrap = _WRAPPERS.get(path.suffix.lower())
    try:
        with wrap(path.open("rb")) if wrap else path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (EOFError, zlib.error, zstandard.ZstdError, _XzError) as error:
        raise _damaged(path, error) from None
    except IsADirectoryError:
        raise DataError(f"{path}: cannot be read: it is a folder; name a file in it") from None
    except OSError as error:
        if error.errno is None and wrap:  # bz2 reports data of another kind so
            raise _damaged(path, error) from None
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


@contextmanager
def decompressing(file: BinaryIO, name: str) -> Iterator[io.BufferedReader]:
    """Decompress what is read from ``file`` by the extension of ``name``; errors while reading are as in
    ``open_bytes``."""
    wrap = _WRAPPERS.get(Path(name).suffix.lower())
    try:
        with wrap(file) if wrap else io.BufferedReader(cast(io.RawIOBase, file)) as content:
            yield cast(io.BufferedReader, content)
    except (EOFError, zlib.error, zstandard.ZstdError, _XzError) as error:
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
    for compressed in _WRAPPERS:
        name = name.removesuffix(compressed)
    return Path(name).suffix


def _from_gzip(file: BinaryIO) -> io.BufferedReader:
    return _buffered(_Streams(file, _GzipStream, padding=1))


def _from_bzip2(file: BinaryIO) -> io.BufferedReader:
    import bz2  # here: an interpreter may have been built without it

    return _buffered(_Streams(file, bz2.BZ2Decompressor, padding=1))


def _from_xz(file: BinaryIO) -> io.BufferedReader:
    import lzma

    return _buffered(_Streams(file, lzma.LZMADecompressor, padding=4))


def _from_zstd(file: BinaryIO) -> io.BufferedReader:
    return _buffered(_Streams(file, _ZstdStream))


def _buffered(raw: io.RawIOBase) -> io.BufferedReader:
    return io.BufferedReader(raw, buffer_size=DECOMPRESSED)


_WRAPPERS: dict[str, Callable[[BinaryIO], io.BufferedReader]] = {
    ".gz": _from_gzip,
    ".zst": _from_zstd,
    ".bz2": _from_bzip2,
    ".xz": _from_xz,
}
_KINDS = {".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}


class _Decompressor(Protocol):
    """Decompressor of one stream, as those of ``bz2`` and ``lzma``: it keeps what it was given beyond its limit."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipStream:
    """Decompressor of one gzip stream."""

    def __init__(self):
        self.zlib, self.needs_input = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), True

    @property
    def eof(self) -> bool:
        return self.zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self.zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        content = self.zlib.decompress(self.zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(content) < max_length
        return content


class _ZstdStream:
    """Decompressor of one zstd frame. Its results may be longer than asked for; see ``ZSTD_READ``."""

    def __init__(self):
        self.zstd, self.given = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj(), b""

    @property
    def eof(self) -> bool:
        return self.zstd.eof

    @property
    def unused_data(self) -> bytes:
        return self.zstd.unused_data + self.given

    @property
    def needs_input(self) -> bool:
        return not self.given

    def decompress(self, data: bytes, max_length: int) -> bytes:
        given = self.given + data
        now, self.given = given[:ZSTD_READ], given[ZSTD_READ:]
        return self.zstd.decompress(now)


class _Streams(io.RawIOBase):
    """Reader of all streams of a compressed file, one after the other.

    Unlike the libraries' own readers it notices a truncated file, and damage in any stream. Python's readers take a
    later stream that is damaged for the end of the file.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], _Decompressor], *, padding: int = 0):
        """
        Args:
            new: makes the decompressor of a stream.
            padding: zero bytes in multiples of this number may follow a stream; 0 means none.
        """
        self.file, self.new, self.padding = file, new, padding
        self.stream: _Decompressor | None = new()
        """The stream that is being read; None after its end."""
        self.ready = memoryview(b"")
        """Decompressed and not yet read."""
        self.waiting = b""
        """Read and not yet decompressed: the bytes after the end of a stream."""
        self.zeros = 0
        """Bytes of padding since the last stream."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.ready:
            more = self.stream is None or self.stream.needs_input
            compressed = self._compressed() if more else b""
            if more and not compressed:
                break
            if self.stream is None:
                self.stream, self.zeros = self.new(), 0
            self.ready = memoryview(self.stream.decompress(compressed, max_length=DECOMPRESSED))
            if self.stream.eof:
                self.waiting, self.stream = self.stream.unused_data, None
        size = min(len(buffer), len(self.ready))
        buffer[:size], self.ready = self.ready[:size], self.ready[size:]
        return size

    def _compressed(self) -> bytes:
        """Return the next bytes of a stream; none at the end of the file."""
        while content := self.waiting or self.file.read(READ):
            self.waiting = b""
            if self.stream is not None or not self.padding:
                return content
            rest = content.lstrip(b"\0")
            self.zeros += len(content) - len(rest)
            if rest:
                self._check_padding()
                return rest
        if self.stream is not None:
            raise EOFError("it is truncated")
        self._check_padding()
        return b""

    def _check_padding(self) -> None:
        if self.zeros and self.zeros % self.padding:
            raise EOFError(f"{self.zeros} zero bytes between two streams, or at the end")

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
