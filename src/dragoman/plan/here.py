"""This machine as a hardware profile: measured, not looked up, in a second or two."""

import functools
import os
import time
from pathlib import Path

import torch

from dragoman.machine import peak
from dragoman.plan.hardware import HERE, Hardware
from dragoman.plan.replay import call_overhead

STREAM = 1 << 26
"""Bytes that are copied to measure the memory's bandwidth: more than caches hold."""


@functools.cache
def this_machine() -> Hardware:
    """Return this machine: its GPU where there is one, else its cores as this process may use them.

    Measured once in a process; another program's load is in it.
    """
    if torch.cuda.is_available():
        return _gpu()
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    speeds = {"float32": max(peak("float32", products, cpu) for products in _libraries())}
    speeds["bfloat16"] = peak("bfloat16", "torch", cpu)
    return Hardware(
        name=HERE,
        title=f"this machine, {threads} thread{'s' if threads > 1 else ''}",
        kind="cpu",
        peak=speeds,
        bandwidth=_bandwidth(cpu),
        memory=available_memory(),
        source="measured",
        date=time.strftime("%Y-%m-%d"),
        launch=call_overhead(),
    )


def _gpu() -> Hardware:
    device = torch.device("cuda")
    made = torch.cuda.get_device_properties(device)
    kinds = ("float32", "bfloat16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("float32",)
    return Hardware(
        name=HERE,
        title=made.name,
        kind="gpu",
        peak={kind: peak(kind, "torch", device) for kind in kinds},
        bandwidth=_bandwidth(device),
        memory=torch.cuda.mem_get_info(device)[0],
        source="measured",
        date=time.strftime("%Y-%m-%d"),
    )


def _libraries() -> tuple:
    return ("torch", "onednn") if torch.backends.mkldnn.is_available() else ("torch",)


def _bandwidth(device: torch.device) -> float:
    """Return the bytes per second of a copy, read and written."""
    size = STREAM if device.type == "cpu" else 16 * STREAM
    x, y, shortest = torch.ones(size // 4, device=device), torch.ones(size // 4, device=device), float("inf")
    for _ in range(5):
        start = time.perf_counter()
        y.copy_(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, time.perf_counter() - start)
    return 2 * size / shortest


# ---- memory -----------------------------------------------------------------------------------------


def available_memory() -> int:
    """Return the bytes that this process may still take: of the machine, or of the container that it runs in."""
    limits = [found for found in (_free_of_machine(), _free_of_container()) if found is not None]
    return min(limits, default=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _free_of_machine() -> int | None:
    """Return what Linux says is available without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def _free_of_container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what the limit of a control group (version 2) leaves; the file cache can be given back."""
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cache = next((int(x.split()[1]) for x in (folder / "memory.stat").open() if x.startswith("file ")), 0)
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - int(used) + cache)


def resident_memory() -> int | None:
    """Return the bytes of memory that this process holds now; None where the system does not tell."""
    return _status("VmRSS:")


def peak_resident_memory() -> int | None:
    """Return the most bytes of memory that this process held at once; None where the system does not tell."""
    return _status("VmHWM:")


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(name)]
    return 1024 * int(found[0]) if found else None
