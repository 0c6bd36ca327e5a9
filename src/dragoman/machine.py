"""What is computed on, in which precision, and how the memory for it is kept."""

import ctypes
import functools
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dragoman.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8"}
Products = Literal["auto", "torch", "onednn"]
"""Whose products of float32 matrices a CPU runs: torch's choice (MKL, as a rule), or oneDNN's, which it brings too."""


def full_dtype_name(numbers: Any) -> Any:
    """bf16 and the like, as other tools write them, by the names we use; anything else as it is."""
    return _SHORT.get(numbers, numbers) if isinstance(numbers, str) else numbers


def choose_device(wanted: Device) -> torch.device:
    """The GPU where there is one, unless told otherwise.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: cuda, but torch finds no GPU here: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """``auto`` becomes bfloat16 where it is multiplied faster: on GPUs that have units for it, on CPUs as measured.

    Raises:
        ConfigError: float16 on a CPU, where nothing is faster in it.
    """
    if wanted == "float16" and device.type == "cpu":
        raise ConfigError("train.precision: float16 is for GPUs, and this is a CPU: use auto, bfloat16 or float32")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _is_faster("bfloat16", over=("torch", "onednn")) else "float32"


def choose_products(wanted: Products, device: torch.device, precision: Precision) -> Products:
    """``auto`` becomes oneDNN where a CPU is measured to multiply float32 faster with it: MKL leaves half the speed of
    a CPU unused that is not of its maker.

    Raises:
        ConfigError: oneDNN is asked for, and this torch was built without it.
    """
    if wanted == "onednn" and not torch.backends.mkldnn.is_available():
        raise ConfigError("train.products: onednn, but this torch was built without it: use torch or auto")
    if wanted != "auto":
        return wanted
    here = device.type == "cpu" and precision == "float32"
    return "onednn" if here and _is_faster("onednn", over=("torch",)) else "torch"


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias, as ``F.linear``, by oneDNN. Takes transposed tensors as they are. Knows no derivative."""
    if torch.compiler.is_compiling():
        return _opaque_linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("dragoman::onednn_linear", mutates_args=())
def _opaque_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same to a compiler, which takes torch's own operation for one whose weight never changes."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@_opaque_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def compiler_message(error: Exception) -> str:
    """The one line of all that torch.compile raises that tells what is missing."""
    return str(getattr(error, "inner_exception", error)).strip().splitlines()[0]


# ---- measured ---------------------------------------------------------------------------------------

MIN_SPEEDUP = 1.2
"""Times as fast a product must be for another precision or library to be worth it."""


def _is_faster(name: str, *, over: tuple[str, ...]) -> bool:
    seconds = product_seconds()
    return name in seconds and MIN_SPEEDUP * seconds[name] < min(seconds[other] for other in over if other in seconds)


@functools.cache
def product_seconds() -> dict[str, float]:
    """What one matrix product takes on the CPU, in either library and precision: measured once, in milliseconds."""
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


def peak(precision: Precision, products: Products, device: torch.device) -> float:
    """Floating-point operations a second of one large product, as a run in this precision multiplies on this device."""
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
    """The shortest time of each in seconds, of ``rounds`` in turn: so that what else the machine does falls on all."""
    seconds = dict.fromkeys(candidates, float("inf"))
    for candidate in candidates.values():
        candidate()  # the first time it prepares
    for _ in range(rounds):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


# ---- entered, and kept ------------------------------------------------------------------------------


def autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What to enter around a forward pass: weights stay float32, matrix products run in ``precision``."""
    assert precision != "auto", "chosen when the run is resolved"
    if precision == "float32":
        return nullcontext
    return lambda: torch.autocast(device.type, getattr(torch, precision))


def keep_memory() -> None:
    """Have the C library keep the memory that is freed, for the rest of the process.

    By default it returns large blocks to the system at once, and each step's activations are then faulted in page by
    page again: a fifth of a small model's step on a CPU. No effect but on Linux with glibc.
    """
    trim_threshold, mmap_max = -1, -4  # mallopt(3)
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(mmap_max, 0)
            library.mallopt(trim_threshold, 2**31 - 1)
