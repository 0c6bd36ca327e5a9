"""This machine as a hardware profile: measured, not looked up, in a second or two."""

import functools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dragoman.data.batch import PairBatch
from dragoman.data.tasks import TranslationTask
from dragoman.machine import Precision, autocast, keep_memory, onednn_has, onednn_linear, peak, return_memory
from dragoman.native.library import FLOAT32, available, library
from dragoman.plan.memory_here import available_memory, resident_memory
from dragoman.plan.profile import HERE, Hardware
from dragoman.plan.replay import (
    COMPILED,
    RecordedCall,
    RecordedStep,
    call_overhead,
    clock_of_steps,
    estimated,
    seconds_of,
)
from dragoman.presets import rewritten2026

CODES = 48
"""Sizes of products that are tried to see how much memory their code takes."""
STEPS = 12
"""Steps of a tiny model that are timed."""

STREAM = 1 << 25
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
        title=f"machine as measured, {threads} thread{'s' if threads > 1 else ''}",
        kind="cpu",
        peak=speeds,
        bandwidth=bandwidth_here(),
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


@functools.cache
def bandwidth_here() -> float:
    """Return the bytes per second of a copy in the memory of the processor, read and written."""
    return _bandwidth(torch.device("cpu"))


def _bandwidth(device: torch.device) -> float:
    size = STREAM if device.type == "cpu" else 16 * STREAM
    x, y, shortest = torch.ones(size // 4, device=device), torch.ones(size // 4, device=device), float("inf")
    clock = clock_of_steps() if device.type == "cpu" else time.perf_counter
    for _ in range(4):
        start = clock()
        y.copy_(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, clock() - start)
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
        model = (
            rewritten2026(dim=32, heads=1, kv_heads=1, hidden=32, depth=2).sized(vocab=64, source_vocab=None).build()
        )
        batch = PairBatch(*(torch.full((2, 4), 7) for _ in range(3)))
        recording = RecordedStep.empty()
        forward, backward = _step(model, batch, recording, autocast(precision, torch.device("cpu")))
        alone = seconds_of(recording.distinct(), arena=1 << 22)
    seconds = [
        sum(number * alone[call].usual for call, number in calls.items() if call in alone)
        for calls in (recording.forward, recording.backward)
    ]
    return CallCost(
        max(0.0, forward - seconds[0]) / max(1, recording.forward.total()),
        max(0.0, backward - seconds[1]) / max(1, recording.backward.total()),
    )


def _step(model: Any, batch: PairBatch, recording: RecordedStep, cast: Callable[[], Any]) -> tuple[float, float]:
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

    def __init__(self, recording: RecordedStep):
        super().__init__()
        self.recording, self.backward = recording, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.recording.observe(func, args, kwargs or {}, self.backward)
        return func(*args, **(kwargs or {}))


# ---- a step -----------------------------------------------------------------------------------------

PRODUCTS = {
    *(
        "mm",
        "addmm",
        "addmm_",
        "bmm",
        "baddbmm",
        "mv",
        "addmv",
        "dot",
        "_linear_pointwise",
        "convolution",
        "convolution_backward",
    ),
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"),
    *("native.add_gradient", "mkldnn_rnn_layer", "mkldnn_rnn_layer_backward"),
    *(f"native.{name}{suffix}" for name in ("flash", "flash_gradient") for suffix in ("", FLOAT32)),
}
"""Operations that multiply matrices, attention among them."""


class StepHere(NamedTuple):
    """Processor seconds of the passes of a step on this machine, by what they are spent on."""

    products: float
    others: float
    """All other operations, which pass over memory."""
    between: float
    """Between operations, in Python and autograd, and for code of the products of experts, which never have the same
    number of tokens twice: the same for any number of tokens."""
    new_shapes: float
    """Once for shapes that no recent step had, when the library for products makes code for them."""
    product_shapes: int
    """Number of distinct products."""
    busy: float = 1.0
    """Time that passes for a second of the processor, while other programs run beside this one."""

    @property
    def seconds(self) -> float:
        """Return the seconds of a step on shapes that recent steps had."""
        return self.products + self.others + self.between


def step_here(recording: RecordedStep, precision: Precision, *, within: float = 5.0) -> StepHere:
    """Return the time of recorded passes on this machine's processor, timing at most about ``within`` seconds."""
    kernels = library() if available() else None
    keep_memory()
    wall, cpu = time.perf_counter(), clock_of_steps()()
    found = seconds_of(recording.distinct(), kernels, within=within)
    spent = clock_of_steps()() - cpu
    busy = (time.perf_counter() - wall) / spent if spent else 1.0
    products, others = 0.0, 0.0
    for calls in (recording.forward, recording.backward):
        for call, number in calls.items():
            seconds = found[call].usual if call in found else estimated(call, found, bandwidth_here())
            if call.name in PRODUCTS:
                products += number * seconds
            else:
                others += number * seconds
    cost, (forward, backward) = call_cost(precision), map(_dispatched, (recording.forward, recording.backward))
    between = cost.forward * forward + cost.backward * backward
    compiled = {call: time.first - time.usual for call, time in found.items() if call.name in COMPILED}
    ragged = recording.ragged()
    between += sum(number * compiled.get(call, 0.0) for call, number in ragged.items())
    made = [seconds for call, seconds in compiled.items() if call not in ragged]
    return StepHere(products, others, between, sum(made), len(made), max(1.0, busy))


@functools.cache
def code_bytes(precision: Precision) -> int:
    """Return the bytes that oneDNN keeps for each size of product, measured on some sizes that no model has."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    x, weight = torch.ones(CODES + 1100, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    return_memory()  # what is free would hide what is kept
    before = resident_memory()
    for rows in range(1001, 1001 + CODES):
        onednn_linear(x[:rows], weight)
    return_memory()
    after = resident_memory()
    return 0 if before is None or after is None else max(0, after - before) // CODES


def kept_code(recording: RecordedStep, precision: Precision, other_shapes: int) -> int:
    """Return the bytes of the code that oneDNN keeps for the products of the recorded step, of ``other_shapes``
    batches besides, and of experts."""
    if not onednn_has(precision):
        return 0
    products = sum(call.name in COMPILED for call in recording.distinct())
    number = remembered_products() if recording.ragged() else min(remembered_products(), (1 + other_shapes) * products)
    return number * code_bytes(precision) if number else 0


def remembered_products() -> int:
    """Return the number of products whose code oneDNN keeps."""
    given = os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "")
    return int(given) if given.isdigit() else 1024


def _dispatched(calls: Mapping[RecordedCall, int]) -> int:
    """Return the number of calls that PyTorch dispatches; kernels of this package are called directly."""
    return sum(number for call, number in calls.items() if not isinstance(call.function, str))
