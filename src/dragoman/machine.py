"""What is computed on, in which precision, and how the memory for it is kept."""

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from dragoman.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(wanted: Device) -> torch.device:
    """The GPU where there is one, unless told otherwise.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: cuda, but torch finds no GPU here: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """``auto`` becomes bfloat16 where matrix units multiply it: on GPUs that have them, on CPUs with AMX tiles."""
    if wanted != "auto":
        return wanted
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _has_amx()
    return "bfloat16" if fast else "float32"


def _has_amx() -> bool:
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(ask and ask())


def autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What to enter around a forward pass: weights stay float32, matrix products run in ``precision``."""
    assert precision != "auto", "chosen when the run is resolved"
    if precision == "float32":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


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
