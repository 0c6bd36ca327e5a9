"""Speech as log-mel frames: wave files read by the standard library, and their spectra as Whisper reads them.

    16,000 samples a second -> every 10 ms the power of 201 frequencies in 25 ms -> 80 or 128 mel bands -> logarithms

The steps are those of Radford et al. (arXiv:2212.04356, section 2.2). N samples, T frames, M mel bands, F frequencies.
"""

import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dragoman.errors import DataError

_ADVICE = "convert it, for example with: ffmpeg -i FILE -ar {rate} -ac 1 -c:a pcm_s16le speech.wav"
_LINEAR, _STEP = 200.0 / 3.0, np.log(6.4) / 27.0
"""Slaney's mel scale: hertz of a mel below 1000 Hz (15 mel), and the logarithm of the factor of a mel above."""
_FLOOR, _RANGE = 1e-10, 8.0
"""Least power of a band, and the range of a window in powers of ten below its loudest band."""


@dataclass(frozen=True)
class LogMel:
    """Settings of log-mel frames."""

    bands: int = 80
    """Mel bands M."""
    rate: int = 16_000
    """Samples a second."""
    hop: int = 160
    """Samples from one frame to the next."""
    length: int = 400
    """Samples that a frame sees."""

    def frames(self, samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, "T M"]:
        """Return the frames of one window, in float32: values of loud windows lie between -1 and about 1.5."""
        around = self.length // 2
        wide = np.pad(samples.astype(np.float64), around, mode="reflect" if len(samples) > around else "constant")
        seen = np.lib.stride_tricks.sliding_window_view(wide, self.length)[:: self.hop][: len(samples) // self.hop]
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.length) / self.length)  # Hann, periodic
        power = np.abs(np.fft.rfft(seen * window, axis=1)) ** 2
        found = np.log10(np.maximum(power @ mel_filters(self.bands, self.length, self.rate), _FLOOR))
        return ((np.maximum(found, found.max(initial=-np.inf) - _RANGE) + 4.0) / 4.0).astype(np.float32)

    def windows(self, samples: Float[np.ndarray, " N"], frames: int) -> Float[np.ndarray, "B T M"]:
        """Return the frames of successive windows of ``frames`` frames, the last filled with silence."""
        size = frames * self.hop
        count = max(1, -(-len(samples) // size))
        filled = np.pad(samples, (0, count * size - len(samples))).reshape(count, size)
        return np.stack([self.frames(window) for window in filled])


@lru_cache(maxsize=4)
def mel_filters(bands: int, length: int, rate: int) -> Float[np.ndarray, "F M"]:
    """Return triangular filters on Slaney's mel scale from 0 Hz to half the rate, each of the same area."""
    mels = np.linspace(0.0, _to_mel(rate / 2), bands + 2)
    above = mels >= 15.0
    edges = np.where(above, 1000.0 * np.exp(_STEP * (np.maximum(mels, 15.0) - 15.0)), _LINEAR * mels)
    frequencies = np.linspace(0.0, rate // 2, 1 + length // 2)
    rising = (frequencies[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))


def _to_mel(hertz: float) -> float:
    return 15.0 + float(np.log(hertz / 1000.0)) / _STEP if hertz >= 1000.0 else hertz / _LINEAR


def read_wave(path: str | Path, rate: int) -> Float[np.ndarray, " N"]:
    """Read a WAV file of ``rate`` samples a second: float32 from -1 to 1, several channels as their mean.

    Samples may have 8, 16, 24 or 32 bits.

    Raises:
        DataError: no such file, another format, another rate, or a file that ends too early.
    """
    advice = _ADVICE.format(rate=rate)
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, found, count = file.getparams()[:4]
            raw = file.readframes(count)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (wave.Error, EOFError) as error:
        said = str(error) or "it ends too early"
        raise DataError(f"{path}: not a WAV file of whole numbers ({said}): {advice}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if found != rate:
        raise DataError(f"{path}: {found} samples a second, and the model hears {rate}: {advice}")
    if len(raw) < count * channels * width or width > 4:
        raise DataError(f"{path}: holds less than the {count} samples that it states: the file is cut off")
    return _as_floats(raw, width).reshape(-1, channels).mean(axis=1, dtype=np.float32)


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
