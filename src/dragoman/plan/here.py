"""This machine as a hardware profile: measured, not looked up, in a second or two."""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dragoman.data.batch import PairBatch
from dragoman.data.tasks import TranslationTask
from dragoman.machine import Precision, autocast, peak
from dragoman.plan.hardware import HERE, Hardware
from dragoman.plan.replay import Recording, call_overhead, clock_of_steps, seconds_of
from dragoman.presets import rewritten2026

STEPS = 12
"""Steps of a tiny model that are timed."""

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


# ---- between operations ----------------------------------------------------------------------------


class CallCost(NamedTuple):
    """Seconds that a step spends for each operation besides running it: in Python, and in autograd."""

    forward: float
    backward: float


@functools.cache
def call_cost(precision: Precision) -> CallCost:
    """Measure what operations cost within a step but not alone: modules in Python, nodes of autograd.

    A translator of some thousand weights makes steps on a few tokens, which leave next to nothing to compute. Its
    steps take longer than its operations take alone; the difference, for each of them, is the same in larger models.
    """
    with torch.random.fork_rng(devices=[]):
        model = rewritten2026(dim=32, heads=1, kv_heads=1, hidden=32, depth=2).sized(vocab=64, source_vocab=None).build()
        batch = PairBatch(*(torch.full((2, 4), 7) for _ in range(3)))
        recording = Recording.empty()
        forward, backward = _step(model, batch, recording, autocast(precision, torch.device("cpu")))
        alone = seconds_of(recording.distinct())
    seconds = [
        sum(number * alone.get(call, 0.0) for call, number in calls.items())
        for calls in (recording.forward, recording.backward)
    ]
    return CallCost(
        max(0.0, forward - seconds[0]) / max(1, recording.forward.total()),
        max(0.0, backward - seconds[1]) / max(1, recording.backward.total()),
    )


def _step(model: Any, batch: PairBatch, recording: Recording, cast: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of the forward and the backward pass of a step; record the calls of another one."""
    clock, task, times = clock_of_steps(), TranslationTask(), []
    for _ in range(STEPS):
        start = clock()
        with cast():
            summed, _ = task.loss(model.train(), batch)
        half = clock()
        summed.backward()
        times.append((half - start, clock() - half))
    with _Recorder(recording) as recorder:
        with cast():
            summed, _ = task.loss(model, batch)
        recorder.backward = True
        summed.backward()
    forward, backward = (sorted(column)[STEPS // 3] for column in zip(*times, strict=True))
    return forward, backward


class _Recorder(TorchDispatchMode):
    """Records the calls of a real step."""

    def __init__(self, recording: Recording):
        super().__init__()
        self.recording, self.backward = recording, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.recording.observe(func, args, kwargs or {}, self.backward)
        return func(*args, **(kwargs or {}))


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
