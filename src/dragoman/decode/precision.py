"""A trained model made ready to run: where, in which numbers, and by whose kernels; chosen by the machine unless told
otherwise."""

import logging
import time
from functools import cache
from typing import Literal, TypeVar, cast, get_args

import torch
from torch import nn

from dragoman.config import unknown
from dragoman.errors import ConfigError
from dragoman.machine import Precision, choose_precision, full_dtype_name, keep_memory
from dragoman.model.inference.layouts import Int8Linear, NumberFormat, Panels, TransposedLinear, panels
from dragoman.model.inference.native import NativeTransformer, UnknownToKernels
from dragoman.model.inference.packed import pack
from dragoman.model.transformer import Transformer
from dragoman.native.library import cached_choice, library, unavailable

AnyModel = TypeVar("AnyModel", bound=nn.Module)
DecodingPrecision = Literal["auto", "float32", "bfloat16", "int8"]
log = logging.getLogger(__name__)


def prepare_for_inference(model: AnyModel, device: str = "auto", precision: str = "auto") -> AnyModel:
    """``model``, or one made of its parts, on a device, laid out for decoding. Nothing learns after this, and ``model``
    itself is used up.

    On CPUs a translator or language model runs by kernels of our own, where there is a C compiler to build them, and
    where they know what it is made of (``model/kernels/native.py``); else by PyTorch's. Which it is, is logged.

    Args:
        model: as it was trained.
        device: as torch names it; ``auto`` is the GPU if there is one.
        precision: ``auto`` is bfloat16 where its products are faster here, else float32. ``int8`` is products of whole
            numbers of 8 bits, with scales by output and by row, and all else in float32: for CPUs.

    Raises:
        ConfigError: no such device or precision, or a precision that is not for this device.
    """
    precision = full_dtype_name(precision)
    if precision not in get_args(DecodingPrecision):
        raise ConfigError(unknown("precision", precision, get_args(DecodingPrecision)))
    place = next(on_device(model, device).parameters()).device
    if precision == "int8" and place.type != "cpu":
        raise ConfigError(f"precision: int8 is for CPUs, and this is {place}: use bfloat16, or device cpu")
    keep_memory()
    why_not = unavailable() if place.type == "cpu" else f"{place} has kernels of its own"
    if why_not is None and isinstance(model, Transformer) and model.embed.tokens.weight.dtype == torch.float32:
        numbers = remembered_numbers() if precision == "auto" else cast(NumberFormat, precision)
        return cast(AnyModel, by_kernels(model, numbers))
    return by_pytorch(model, place, precision, why_not or "it is no Transformer in float32")


def resolve_auto(device: str, precision: str) -> tuple[str, str]:
    """What ``auto`` comes to here and now, so that it can be written down and asked for again.

    Raises:
        ConfigError: no such device.
    """
    place, precision = place_named(device), full_dtype_name(precision)
    if precision == "auto":
        by_ours = place.type == "cpu" and unavailable() is None
        precision = remembered_numbers() if by_ours else precision_of("auto", place)
    return str(place), precision


def by_kernels(model: Transformer, numbers: NumberFormat) -> Transformer:
    pack(model, panels(numbers))
    try:
        model = NativeTransformer(model)
    except UnknownToKernels as part:
        log.info("decoding in %s: products by kernels of our own, steps by PyTorch, for %s", numbers, part)
    else:
        log.info("decoding in %s by kernels of our own", numbers)
    return model


def by_pytorch(model: AnyModel, place: torch.device, precision: str, why: str) -> AnyModel:
    if precision != "int8" and (precision := precision_of(precision, place)) == "bfloat16":
        model.bfloat16()
    log.info("decoding in %s by PyTorch: %s", precision, why)
    pack(model, Int8Linear if precision == "int8" else TransposedLinear)
    return model


def precision_of(precision: str, place: torch.device) -> str:
    """As ``choose_precision``; what is measured on a CPU is remembered, so that every process answers alike."""
    if precision != "auto" or place.type != "cpu":
        return choose_precision(cast(Precision, precision), place)
    return _one_of(
        get_args(NumberFormat)[:2], cached_choice("precision of PyTorch", lambda: choose_precision("auto", place))
    )


def remembered_numbers() -> NumberFormat:
    """``chosen_numbers`` as they were first measured on this machine."""
    return _one_of(get_args(NumberFormat)[:2], cached_choice("precision of kernels in C", chosen_numbers))


def _one_of(known: tuple[NumberFormat, ...], found: str) -> NumberFormat:
    return cast(NumberFormat, found) if found in known else "float32"  # a file that somebody has edited


@cache
def chosen_numbers() -> NumberFormat:
    """bfloat16 if both one row and 64 of them are multiplied faster so than in float32, here and now: in milliseconds,
    once for each process. Whole numbers are faster still, and are never chosen unasked: they round more."""
    if not library().multiplies_bfloat16:
        return "float32"
    seconds = {
        numbers: [seconds_of_product(numbers, rows) for rows in (1, 64)] for numbers in get_args(NumberFormat)[:2]
    }
    gains = [slow / fast for slow, fast in zip(seconds["float32"], seconds["bfloat16"], strict=True)]
    log.info("bfloat16 products take 1/%.1f of float32's time for one row, 1/%.1f for 64", *gains)
    return "bfloat16" if min(gains) > 1 else "float32"


def seconds_of_product(numbers: NumberFormat, rows: int, width: int = 512) -> float:
    """The least of several."""
    layer, x, taken = Panels([nn.Linear(width, 4 * width)], numbers), torch.ones(rows, width), []
    for _ in range(10):
        began = time.perf_counter()
        layer(x)
        taken.append(time.perf_counter() - began)
    return min(taken)


def on_device(model: AnyModel, device: str) -> AnyModel:
    """``model`` itself, there, and else as it was.

    Raises:
        ConfigError: no such device.
    """
    return model.to(place_named(device))


def place_named(device: str) -> torch.device:
    """
    Raises:
        ConfigError: no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device}: {str(error).splitlines()[0]}") from None
