"""Hardware profiles: peak speed, memory and power of common accelerators and processors, from their makers' figures.

Peaks are dense (without sparsity) and per device. A peak is what the units could compute at most; ``duration.py``
says which fraction of it a step reaches.
"""

import re
from dataclasses import dataclass

from dragoman.config import unknown
from dragoman.errors import ConfigError
from dragoman.plan.profile import HERE, Hardware

GB, TFLOPS = 10**9, 10**12
GIB = 2**30


@dataclass(frozen=True)
class Cluster:
    """Several devices of one kind."""

    device: Hardware
    count: int = 1

    @property
    def name(self) -> str:
        return self.device.name if self.count == 1 else f"{self.device.name}x{self.count}"

    def speed(self, precision: str) -> float:
        """Return the peak of all devices together."""
        return self.count * self.device.speed(precision)

    @property
    def memory(self) -> int:
        """Return the bytes of memory of all devices together."""
        return self.count * self.device.memory


def parse(name: str) -> Cluster:
    """Return the devices that a name such as ``h100x8``, ``a100-40gx1024`` or ``v100`` means; ``here`` is measured.

    Raises:
        ConfigError: no such device, or none of it.
    """
    plain = _plain(name)
    if plain in (HERE, _plain(HERE)):
        from dragoman.plan.here import this_machine

        return Cluster(this_machine())
    if (device := _NAMES.get(plain)) is not None:
        return Cluster(device)
    several = re.fullmatch(r"(.+?)[x*](\d+)|(\d+)[x*](.+)", plain.replace(" ", ""))
    names = [(plain, 1)]
    if several:
        before, after, count, device_name = several.groups()
        names.insert(0, (device_name or before, int(count or after)))
    for wanted, number in names:
        if (device := _NAMES.get(wanted)) is not None:
            if number < 1:
                raise ConfigError(f"--hardware: {name!r} is {number} devices: at least one is needed")
            return Cluster(device, number)
    likely = names[0][0] if several and len(names[0][0]) > 2 else plain
    raise ConfigError(unknown("--hardware", likely, [HERE, *HARDWARE]).rstrip(".") + "; several as in h100x8.")


def _plain(name: str) -> str:
    """Return a name without what writers add or vary: case, makers, dashes, and GB for G."""
    text = re.sub(r"nvidia|geforce|google|apple|intel|amd|tesla|[-_ ]|sxm\d?", "", name.lower())
    return re.sub(r"(\d)gb?(?=$|x)", r"\1g", text)


# ---- the table --------------------------------------------------------------------------------------

_AWS = "AWS on demand, us-east-1, with its host"
_LAMBDA = "Lambda on demand, of 8"


def _gpu(name: str, title: str, *, memory: float, bandwidth: float, **fields: object) -> Hardware:
    peak = {key: value * TFLOPS for key, value in fields.pop("peak").items()}  # pyright: ignore[reportAttributeAccessIssue]
    kind = fields.pop("kind", "gpu")
    given: dict = {"kind": kind, "peak": peak, "memory": round(memory), "bandwidth": bandwidth * GB, **fields}
    return Hardware(name=name, title=title, **given)


def _processor(
    name: str, title: str, *, cores: int, ghz: float, per_cycle: dict[str, int], bandwidth: float, watts: float,
    source: str, date: str,
) -> Hardware:  # fmt: skip
    """Return a processor: its peak is cores x base clock x operations that a core finishes in a cycle."""
    peak = {key: cores * ghz * 1e9 * value for key, value in per_cycle.items()}
    given: dict = {"bandwidth": bandwidth * GB, "watts": watts, "source": source, "date": date}
    return Hardware(name=name, title=title, kind="cpu", peak=peak, memory=256 * GIB, launch=5e-6, **given)


_TABLE = (
    _gpu(
        "p100", "NVIDIA P100 SXM2 16 GB", peak={"float32": 10.6, "float16": 21.2},
        memory=16 * GB, bandwidth=732, watts=300,
        source="NVIDIA Tesla P100 data sheet", date="2016-10",
    ),
    _gpu(
        "v100", "NVIDIA V100 SXM2 32 GB", peak={"float32": 15.7, "float16": 125},
        memory=32 * GB, bandwidth=900, watts=300, price=3.06,
        price_source=f"{_AWS}: p3.2xlarge (16 GB), 2024", source="NVIDIA V100 data sheet", date="2020-01",
    ),
    _gpu(
        "t4", "NVIDIA T4 16 GB", peak={"float32": 8.1, "float16": 65, "int8": 130},
        memory=16 * GB, bandwidth=320, watts=70, price=0.526,
        price_source=f"{_AWS}: g4dn.xlarge, 2024", source="NVIDIA Turing whitepaper", date="2018-09",
    ),
    _gpu(
        "a100-40g", "NVIDIA A100 SXM 40 GB",
        peak={"float32": 19.5, "tf32": 156, "bfloat16": 312, "float16": 312, "int8": 624},
        memory=40 * GB, bandwidth=1555, watts=400, price=1.29,
        price_source=f"{_LAMBDA}, 2025", source="NVIDIA A100 data sheet", date="2021-06",
    ),
    _gpu(
        "a100-80g", "NVIDIA A100 SXM 80 GB",
        peak={"float32": 19.5, "tf32": 156, "bfloat16": 312, "float16": 312, "int8": 624},
        memory=80 * GB, bandwidth=2039, watts=400, price=1.79,
        price_source=f"{_LAMBDA}, 2025", source="NVIDIA A100 data sheet", date="2021-06",
    ),
    _gpu(
        "h100", "NVIDIA H100 SXM 80 GB",
        peak={"float32": 67, "tf32": 494.7, "bfloat16": 989.4, "float16": 989.4, "float8": 1978.9, "int8": 1978.9},
        memory=80 * GB, bandwidth=3350, watts=700, price=2.99,
        price_source=f"{_LAMBDA}, 2025", source="NVIDIA H100 data sheet", date="2023-03",
    ),
    _gpu(
        "h100-pcie", "NVIDIA H100 PCIe 80 GB",
        peak={"float32": 51, "tf32": 378, "bfloat16": 756, "float16": 756, "float8": 1513, "int8": 1513},
        memory=80 * GB, bandwidth=2000, watts=350,
        source="NVIDIA H100 data sheet", date="2023-03",
    ),
    _gpu(
        "h200", "NVIDIA H200 SXM 141 GB",
        peak={"float32": 67, "tf32": 494.7, "bfloat16": 989.4, "float16": 989.4, "float8": 1978.9, "int8": 1978.9},
        memory=141 * GB, bandwidth=4800, watts=700,
        source="NVIDIA H200 data sheet", date="2024-03",
    ),
    _gpu(
        "b200", "NVIDIA B200 180 GB",
        peak={"float32": 75, "tf32": 1125, "bfloat16": 2250, "float16": 2250, "float8": 4500},
        memory=180 * GB, bandwidth=8000, watts=1000,
        source="NVIDIA DGX and HGX B200 data sheets, an eighth", date="2025-02",
    ),
    _gpu(
        "l4", "NVIDIA L4 24 GB",
        peak={"float32": 30.3, "tf32": 60, "bfloat16": 121, "float16": 121, "float8": 242, "int8": 242},
        memory=24 * GB, bandwidth=300, watts=72, price=0.8048,
        price_source=f"{_AWS}: g6.xlarge, 2024", source="NVIDIA L4 data sheet", date="2023-03",
    ),
    _gpu(
        "l40s", "NVIDIA L40S 48 GB",
        peak={"float32": 91.6, "tf32": 183, "bfloat16": 362, "float16": 362, "float8": 733, "int8": 733},
        memory=48 * GB, bandwidth=864, watts=350, price=1.861,
        price_source=f"{_AWS}: g6e.xlarge, 2024", source="NVIDIA L40S data sheet", date="2023-08",
    ),
    _gpu(
        "rtx3090", "NVIDIA GeForce RTX 3090 24 GB",
        peak={"float32": 35.6, "tf32": 35.6, "bfloat16": 71, "float16": 71, "int8": 284},
        memory=24 * GB, bandwidth=936, watts=350,
        source="NVIDIA Ampere GA102 whitepaper, float32 accumulation", date="2021-01",
    ),
    _gpu(
        "rtx4090", "NVIDIA GeForce RTX 4090 24 GB",
        peak={"float32": 82.6, "tf32": 82.6, "bfloat16": 165.2, "float16": 165.2, "float8": 330.3, "int8": 660.6},
        memory=24 * GB, bandwidth=1008, watts=450,
        source="NVIDIA Ada whitepaper, float32 accumulation", date="2022-10",
    ),
    _gpu(
        "rtx5090", "NVIDIA GeForce RTX 5090 32 GB",
        peak={"float32": 104.8, "tf32": 104.8, "bfloat16": 209.5, "float16": 209.5, "float8": 419, "int8": 838},
        memory=32 * GB, bandwidth=1792, watts=575,
        source="NVIDIA RTX Blackwell whitepaper, float32 accumulation", date="2025-01",
    ),
    _gpu(
        "tpu-v3", "Google TPU v3, a chip", kind="tpu", peak={"bfloat16": 123, "float32": 123},
        memory=32 * GB, bandwidth=900, watts=262, source="Google Cloud TPU documentation", date="2023-05",
    ),
    _gpu(
        "tpu-v4", "Google TPU v4, a chip", kind="tpu", peak={"bfloat16": 275, "float32": 275, "int8": 275},
        memory=32 * GB, bandwidth=1200, watts=192, price=3.22, price_source="Google Cloud on demand, us-central2, 2023",
        source="Google Cloud TPU documentation", date="2023-05",
    ),
    _gpu(
        "m1", "Apple M1, its GPU", peak={"float32": 2.6},
        memory=16 * GB, bandwidth=68.25, source="Apple newsroom, Apple unleashes M1", date="2020-11",
    ),
    _gpu(
        "m1-pro", "Apple M1 Pro, its GPU of 16 cores", peak={"float32": 5.2},
        memory=32 * GB, bandwidth=200, source="Apple newsroom, Introducing M1 Pro and M1 Max", date="2021-10",
    ),
    _gpu(
        "m1-max", "Apple M1 Max, its GPU of 32 cores", peak={"float32": 10.4},
        memory=64 * GB, bandwidth=400, source="Apple newsroom, Introducing M1 Pro and M1 Max", date="2021-10",
    ),
    _processor(
        "xeon-8480", "Intel Xeon Platinum 8480+, 56 cores", cores=56, ghz=2.0,
        per_cycle={"float32": 64, "bfloat16": 2048, "int8": 4096}, bandwidth=307.2, watts=350,
        source="Intel ARK: base clock, two AVX-512 units and AMX a core, 8 x DDR5-4800", date="2023-01",
    ),
    _processor(
        "epyc-7742", "AMD EPYC 7742, 64 cores", cores=64, ghz=2.25,
        per_cycle={"float32": 32}, bandwidth=204.8, watts=225,
        source="AMD: base clock, two 256-bit units a core, 8 x DDR4-3200", date="2019-08",
    ),
    _processor(
        "epyc-9654", "AMD EPYC 9654, 96 cores", cores=96, ghz=2.4,
        per_cycle={"float32": 32, "bfloat16": 64}, bandwidth=460.8, watts=360,
        source="AMD: base clock, two 256-bit units a core, 12 x DDR5-4800", date="2022-11",
    ),
)  # fmt: skip

HARDWARE: dict[str, Hardware] = {hardware.name: hardware for hardware in _TABLE}
"""Devices by name. Processors are listed with 256 GiB of memory."""

_OTHER_NAMES = {
    "a100": "a100-80g",
    "a10040": "a100-40g",
    "a10080": "a100-80g",
    "h10080g": "h100",
    "v10032g": "v100",
    "3090": "rtx3090",
    "4090": "rtx4090",
    "5090": "rtx5090",
    "8480": "xeon-8480",
    "9654": "epyc-9654",
    "7742": "epyc-7742",
}
_NAMES = {_plain(name): row for name, row in HARDWARE.items()} | {
    _plain(other): HARDWARE[name] for other, name in _OTHER_NAMES.items()
}
