"""Profile of a device: its peak speed, memory and power."""

from collections.abc import Mapping
from dataclasses import dataclass

HERE = "here"
"""Name of the machine that the command runs on; ``here.py`` measures it."""
WIDER = {
    "float8": "bfloat16",
    "int8": "bfloat16",
    "bfloat16": "float16",
    "float16": "bfloat16",
    "tf32": "float32",
}
"""Precision in which a device without units for one computes instead, where it has those."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One device, as its maker specifies it or as it was measured."""

    name: str
    """Name on the command line, such as ``a100-40g``."""
    title: str
    kind: str
    """``gpu``, ``tpu`` or ``cpu``."""
    peak: Mapping[str, float]
    """Operations per second by precision; a multiplication and an addition are two."""
    bandwidth: float
    """Bytes per second between the device and its memory."""
    memory: int
    """Bytes of memory."""
    watts: float | None = None
    """Electrical power at most."""
    price: float | None = None
    """Dollars an hour, as ``price_source`` says; None where no list price is known."""
    price_source: str = ""
    source: str = ""
    date: str = ""
    """Date of the source."""
    launch: float = 5e-6
    """Seconds that starting one operation takes at least."""

    def speed(self, precision: str) -> float:
        """Return the peak in ``precision``, or in the one that the device computes it in instead."""
        seen = [precision]
        while seen[-1] not in self.peak:
            wider = WIDER.get(seen[-1], "float32")
            if wider in seen:
                wider = "float32"
            seen.append(wider)
        return self.peak[seen[-1]]
