"""Time of a step on a device of the table, and what a training costs there.

The roofline (Williams et al. 2009, CACM 52(4)): an operation takes as long as its FLOPs at the device's speed or its
bytes at the memory's, whichever is longer, and never less than starting it. A stated utilisation (MFU) replaces the
roofline's speed of products by a measured share of the peak.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from dragoman.plan.hardware import Cluster
from dragoman.plan.operation import Operation
from dragoman.plan.profile import Hardware

PRODUCTS, STREAMS = 0.75, 0.85
"""Shares of the peak and of the bandwidth that well-made kernels reach on large shapes. Libraries for products report
70 to 80% of the dense peak, and copies some 85% of the memory's bandwidth; neither tells how well a step fills the
device."""


@dataclass(frozen=True)
class StepTime:
    """Predicted time of a step on one device."""

    seconds: float
    by_part: dict[str, float]
    """Seconds of each part of the model: see ``Operation.part``."""
    flops: int
    peak: float
    """Operations per second of the device in the step's precision."""

    @property
    def utilisation(self) -> float:
        """Return the share of the peak that the step uses (MFU)."""
        return self.flops / (self.seconds * self.peak) if self.seconds else 0.0


def predict(
    operations: Iterable[Operation], device: Hardware, *, precision: str | None = None, mfu: float | None = None
) -> StepTime:
    """Return the time of ``operations`` on ``device``.

    Args:
        precision: of the products; None for the data type of each operation.
        mfu: share of the peak that the whole step reaches; None for the roofline.
    """
    by_part, flops, precisions = defaultdict[str, float](float), 0, Counter[str]()
    for operation in operations:
        kind = precision or _name(operation.dtype)
        by_part[operation.part] += operation.calls * _roofline(operation, device, kind)
        flops += operation.calls * operation.flops
        precisions[kind] += operation.calls * operation.flops
    peak = device.speed(precisions.most_common(1)[0][0] if precisions else precision or "float32")
    total = sum(by_part.values())
    if mfu is None or not total:
        return StepTime(total, dict(by_part), flops, peak)
    seconds = flops / (mfu * peak)
    scaled = {part: seconds * value / total for part, value in by_part.items()}
    return StepTime(seconds, scaled, flops, peak)


def _roofline(operation: Operation, device: Hardware, precision: str) -> float:
    """Return the seconds of one call: those of its FLOPs, of its bytes, or of its start, whichever are most."""
    computing = operation.flops / (PRODUCTS * device.speed(precision)) if operation.flops else 0.0
    return max(computing, operation.bytes_moved / (STREAMS * device.bandwidth), device.launch)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.") if dtype.is_floating_point else "float32"


# ---- what it costs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bill:
    """Costs of a number of seconds on some devices."""

    seconds: float
    device_hours: float
    kwh: float | None
    """Energy at full power; None where the power is not known."""
    dollars: float | None
    """Price; None where none is known."""


def bill(seconds: float, cluster: Cluster, *, price: float | None = None) -> Bill:
    """Return the bill of ``seconds`` on all devices of ``cluster``, at ``price`` dollars for each device and hour, by
    default the table's."""
    hours, device = cluster.count * seconds / 3600, cluster.device
    price = device.price if price is None else price
    kwh = None if device.watts is None else hours * device.watts / 1000
    return Bill(seconds, hours, kwh, None if price is None else hours * price)
