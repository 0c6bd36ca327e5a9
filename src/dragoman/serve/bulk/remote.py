"""Files of other machines and stores, named by an address such as ``s3://bucket/corpus.zst``, read as they come."""

import re
from collections.abc import Iterator
from typing import Any

from dragoman.errors import ConfigError, DataError, UserError
from dragoman.text.compressed import decompressing
from dragoman.text.lines import check_beginning, decode_lines

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


def is_remote(name: str) -> bool:
    """Return whether a name is an address."""
    return _ADDRESS.match(name) is not None


def matching_remote(address: str) -> list[str]:
    """Return the addresses of the files that an address, perhaps with a pattern, names.

    Raises:
        ConfigError: what reads such addresses is not installed.
        DataError: there is no such file.
    """
    files, path = _file_system(address)
    try:
        found = sorted(files.glob(path)) if any(mark in path for mark in "*?[") else [path] * files.isfile(path)
    except Exception as error:  # each store has its own
        raise _unreadable(address, error) from None
    if not found:
        raise DataError(f"{address}: no such file")
    return [str(files.unstrip_protocol(one)) for one in found]


def read_remote_lines(address: str) -> Iterator[str]:
    """Yield the lines of a file, decompressed by its extension, as ``read_lines`` does.

    Raises:
        ConfigError, DataError: as ``matching_remote`` and ``read_lines``.
    """
    files, path = _file_system(address)
    try:
        with files.open(path, "rb") as file, decompressing(file, address) as content:
            check_beginning(content.peek(1), address)
            yield from decode_lines(content, address)
    except UserError:
        raise
    except Exception as error:  # each store has its own, from the middle of a file too
        raise _unreadable(address, error) from None


def _file_system(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(address)
    except ImportError as error:
        if address.lower().startswith("s3:"):
            raise ConfigError(f"{address}: needs s3fs: pip install s3fs (the extra remote)") from None
        raise ConfigError(f"{address}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{address}: {error}") from None


def _unreadable(address: str, error: Exception) -> DataError:
    return DataError(f"{address}: cannot be read: {' '.join(str(error).split()) or type(error).__name__}")
