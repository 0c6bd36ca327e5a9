"""Devices, precisions and libraries for products: their choice, their measurement, and memory settings."""

import ctypes
import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dragoman.errors import ConfigError

# Numbers of products that oneDNN, and PyTorch on top of it, keep ready, each with code and memory for its sizes. They
# are read at the first product. As lengths vary, the defaults of 1,024 take gigabytes, and those of the last steps are
# enough (LOG.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
os.environ.setdefault("LRU_CACHE_CAPACITY", "16")

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8"}
Products = Literal["auto", "torch", "onednn"]
"""Library for float32 products on CPUs: torch's choice (usually MKL), or oneDNN, which is also part of torch."""


def full_dtype_name(numbers: Any) -> Any:
    """Return our name for a data type such as bf16 that other tools abbreviate; anything else unchanged."""
    return _SHORT.get(numbers, numbers) if isinstance(numbers, str) else numbers


def choose_device(wanted: Device) -> torch.device:
    """Return the device; ``auto`` is the GPU where there is one.

    Raises:
        ConfigError: ``cuda`` is requested and there is no GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: cuda, but torch finds no GPU here: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """Resolve ``auto`` to bfloat16 where its products are faster: on GPUs with units for it, on CPUs as measured.

    Raises:
        ConfigError: float16 on a CPU, where it is never faster.
    """
    if wanted == "float16" and device.type == "cpu":
        raise ConfigError("train.precision: float16 is for GPUs, and this is a CPU: use auto, bfloat16 or float32")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _is_faster("bfloat16", over=("torch", "onednn")) else "float32"


def choose_products(wanted: Products, device: torch.device, precision: Precision) -> Products:
    """Resolve ``auto`` to oneDNN where it is measured to multiply float32 faster on this CPU: MKL uses only half the
    speed of CPUs of other makers.

    Raises:
        ConfigError: oneDNN is requested, and this torch was built without it.
    """
    if wanted == "onednn" and not torch.backends.mkldnn.is_available():
        raise ConfigError("train.products: onednn, but this torch was built without it: use torch or auto")
    if wanted != "auto":
        return wanted
    here = device.type == "cpu" and precision == "float32"
    return "onednn" if here and _is_faster("onednn", over=("torch",)) else "torch"


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight^T + bias by oneDNN, as ``F.linear``. Accepts transposed tensors; has no derivative."""
    if torch.compiler.is_compiling():
        return _opaque_linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def onednn_has(precision: Precision) -> bool:
    """Return whether oneDNN multiplies in this precision on this CPU.

    Without AVX-512 it does not in bfloat16. PyTorch multiplies by itself then, and its LSTM raises a RuntimeError.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return precision != "bfloat16" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.library.custom_op("dragoman::onednn_linear", mutates_args=())
def _opaque_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Same as ``onednn_linear``, opaque to a compiler, which would assume that the weight never changes."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@_opaque_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def compiler_message(error: Exception) -> str:
    """Return the line of torch.compile's error that names the cause."""
    return str(getattr(error, "inner_exception", error)).strip().splitlines()[0]


# ---- measured ---------------------------------------------------------------------------------------

MIN_SPEEDUP = 1.2
"""Speedup of products from which on another precision or library is chosen."""


def _is_faster(name: str, *, over: tuple[str, ...]) -> bool:
    seconds = product_seconds()
    return name in seconds and MIN_SPEEDUP * seconds[name] < min(seconds[other] for other in over if other in seconds)


@functools.cache
def product_seconds() -> dict[str, float]:
    """Return the seconds of one matrix product on the CPU for each library and precision; measured once, in a few
    milliseconds."""
    x, weight = torch.ones(256, 512), torch.ones(512, 512)  # no random numbers: those belong to the run
    y, thin = x.bfloat16(), weight.bfloat16()
    candidates: dict[str, Callable[[], Tensor]] = {
        "torch": lambda: F.linear(x, weight),
        "bfloat16": lambda: F.linear(y, thin),
    }
    if torch.backends.mkldnn.is_available():
        candidates["onednn"] = lambda: onednn_linear(x, weight)
    with torch.inference_mode():
        return shortest_times(candidates)


@functools.cache
def peak(precision: Precision, products: Products, device: torch.device) -> float:
    """Return the floating-point operations per second of one large product in this precision on this device; measured
    once in a process, which may train many models."""
    gpu = device.type == "cuda"
    size, dtype = 8192 if gpu else 1024, torch.bfloat16 if precision == "bfloat16" else torch.float32
    x = torch.ones(size, size, dtype=dtype, device=device)
    product = onednn_linear if products == "onednn" and not gpu and dtype == torch.float32 else F.linear

    def multiply() -> None:
        product(x, x)
        if gpu:
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        return 2 * size**3 / shortest_times({"product": multiply}, rounds=4)["product"]


def shortest_times(candidates: Mapping[str, Callable[[], object]], rounds: int = 8) -> dict[str, float]:
    """Return the shortest of ``rounds`` times of each candidate in seconds; they take turns, to share other load."""
    seconds = dict.fromkeys(candidates, float("inf"))
    for candidate in candidates.values():
        candidate()  # warm-up: the first call compiles and allocates
    for _ in range(rounds):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


# ---- autocast and memory ----------------------------------------------------------------------------


def autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return the context manager for a forward pass: weights stay float32, products run in ``precision``."""
    assert precision != "auto", "chosen when the run is resolved"
    if precision == "float32":
        return nullcontext
    return lambda: torch.autocast(device.type, getattr(torch, precision))


def keep_memory() -> None:
    """Make the C library keep freed memory for the rest of the process.

    By default it returns large blocks to the system at once, and the pages of each step's activations are then faulted
    in again: a fifth of a small model's step on a CPU. It has an effect only on Linux with glibc.
    """
    trim_threshold, mmap_max = -1, -4  # mallopt(3)
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(mmap_max, 0)
            library.mallopt(trim_threshold, 2**31 - 1)


def return_memory() -> None:
    """Return freed memory to the system, where the C library can."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
