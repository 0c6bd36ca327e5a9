"""Speech as log-mel frames: spectra of samples, as Whisper reads them.

    16,000 samples a second -> every 10 ms the power of 201 frequencies in 25 ms -> 80 or 128 mel bands -> logarithms

The steps are those of Radford et al. (arXiv:2212.04356, section 2.2). N samples, T frames, M mel bands, F frequencies.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

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
