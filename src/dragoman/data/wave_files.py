"""WAV files of whole numbers, as float samples.

    RIFF, size, WAVE -> chunks of name, size and content: "fmt " says what the samples are, and "data" holds them

Python's ``wave`` refuses WAVE_FORMAT_EXTENSIBLE before version 3.12, and sizes that a pipe leaves open. N samples.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dragoman.errors import DataError

_ADVICE = "convert it, for example with: ffmpeg -i FILE -ar {rate} -ac 1 -c:a pcm_s16le speech.wav"
_PCM, _EXTENSIBLE = 1, 0xFFFE
_GUID = bytes.fromhex("000000001000800000aa00389b71")
"""End of the identifier that names a format in an extensible header; its first two bytes are the format's number."""
_NAMES = {2: "ADPCM", 3: "floats", 6: "A-law", 7: "mu-law", 17: "ADPCM", 80: "MPEG", 85: "MP3"}
_OPEN = 0x7FFFF000
"""Least size that says nothing: programs that write to a pipe state this (SoX), or 0xFFFFFFFF (ffmpeg)."""


@dataclass(frozen=True)
class _Format:
    """Description of the samples."""

    channels: int
    width: int
    """Bytes of a sample."""
    rate: int


class _Unsupported(Exception):
    """Reason why a file is no WAV file of whole numbers."""


def read_wave(path: str | Path, rate: int) -> Float[np.ndarray, " N"]:
    """Read a WAV file of ``rate`` samples a second: float32 from -1 to 1, several channels as their mean.

    Samples are whole numbers of 8, 16, 24 or 32 bits. A file that a program wrote to a pipe is read to its end: nothing
    may follow its samples.

    Raises:
        DataError: no such file, another format, another rate, or a file that ends too early.
    """
    advice = _ADVICE.format(rate=rate)
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        kind, size, raw = _parsed(content)
    except _Unsupported as fault:
        raise DataError(f"{path}: not a WAV file of whole numbers ({fault}): {advice}") from None
    if kind.rate != rate:
        raise DataError(f"{path}: {kind.rate} samples a second, and the model hears {rate}: {advice}")
    step = kind.channels * kind.width
    if len(raw) < size and (size < _OPEN or len(raw) % step):
        raise DataError(f"{path}: holds less than the {size // step} samples that it states: the file is cut off")
    raw = raw[: len(raw) // step * step]
    return _as_floats(raw, kind.width).reshape(-1, kind.channels).mean(axis=1, dtype=np.float32)


def _parsed(content: bytes) -> tuple[_Format, int, bytes]:
    """Return the format, the size that is stated for the samples, and the samples that there are."""
    if content and (content[:4] != b"RIFF"[: len(content)] or content[8:12] != b"WAVE"[: max(0, len(content) - 8)]):
        raise _Unsupported("it does not begin as one")
    kind, at = None, 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        inside = content[at + 8 : at + 8 + size]
        if name == b"fmt ":
            kind = _format(inside)
        if name == b"data":
            if kind is None:
                raise _Unsupported("its samples come before their format")
            return kind, size, inside
        at += 8 + size + size % 2  # chunks begin at even places
    raise _Unsupported("it ends too early")


def _format(chunk: bytes) -> _Format:
    if len(chunk) < 16:
        raise _Unsupported("its format ends too early")
    tag, channels, rate, _, step, bits = struct.unpack("<HHIIHH", chunk[:16])
    if tag == _EXTENSIBLE and chunk[26:40] == _GUID:
        tag = int.from_bytes(chunk[24:26], "little")
    if tag != _PCM:
        raise _Unsupported(_NAMES.get(tag, f"format {tag}"))
    width = -(-bits // 8)
    if not 1 <= width <= 4:
        raise _Unsupported(f"samples of {bits} bits")
    if not channels or step > channels * width:  # some programs leave 0 there
        raise _Unsupported(f"{channels} channels of {bits} bits in {step} bytes")
    return _Format(channels, width, rate)


def _as_floats(raw: bytes, width: int) -> Float[np.ndarray, " N"]:
    """Return samples of ``width`` bytes as numbers from -1 to 1."""
    if width == 1:  # these alone have no sign
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128.0) / 128.0
    if width == 3:
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw, width = padded.tobytes(), 4
    kind = {2: "<i2", 4: "<i4"}[width]
    return np.frombuffer(raw, kind).astype(np.float32) / float(2 ** (8 * width - 1))
