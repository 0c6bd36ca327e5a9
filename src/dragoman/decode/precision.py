"""Preparation of a trained model for inference: device, number format and kernels, chosen by measurement by default."""

import logging
import time
from functools import cache
from typing import Literal, TypeVar, cast, get_args

import torch
from torch import nn

from dragoman.config import unknown
from dragoman.decode.arguments import check_kind
from dragoman.errors import ConfigError
from dragoman.machine import Precision, choose_precision, full_dtype_name, keep_memory
from dragoman.model.convolution.weights import fold_weight_norm
from dragoman.model.inference.layouts import Int8Linear, NumberFormat, Panels, TransposedLinear, panels
from dragoman.model.inference.native import NativeTransformer, UnknownToKernels
from dragoman.model.inference.packed import pack
from dragoman.model.interface import SequenceModel
from dragoman.model.transformer import Transformer
from dragoman.native.library import cached_choice, library, unavailable, wanted_kernels

AnyModel = TypeVar("AnyModel", bound=nn.Module)
DecodingPrecision = Literal["auto", "float32", "bfloat16", "int8"]
ROWS = (1, 4, 16, 64)
"""Rows of the products by which the kernels for int8 are chosen."""
log = logging.getLogger(__name__)


def prepare_for_inference(model: AnyModel, device: str = "auto", precision: str = "auto") -> AnyModel:
    """Return ``model``, or a model made of its parts, on a device and laid out for decoding.

    The result cannot be trained, and ``model`` itself must not be used afterwards. On CPUs a translator or language
    model runs by kernels of our own, if there is a C compiler to build them and if they know all of its parts
    (``model/inference/native.py``); else by PyTorch's. The log states which.

    Args:
        model: as it was trained.
        device: as torch names it; ``auto`` is the GPU if there is one.
        precision: ``auto`` is bfloat16 where its products are faster on this machine, else float32. ``int8`` computes
            products of 8-bit integers, with scales by output and by row, and all else in float32: for CPUs.

    Raises:
        ConfigError: no such device or precision, or a precision that this device does not support.
    """
    place, precision = _moved(model, device, precision)
    keep_memory()
    why_not = unavailable() if place.type == "cpu" else f"{place} has kernels of its own"
    fold_weight_norm(model)
    if why_not is None and isinstance(model, SequenceModel) and model.output.weight.dtype == torch.float32:
        number_format = remembered_number_format() if precision == "auto" else cast(NumberFormat, precision)
        return cast(AnyModel, prepare_kernels(model, number_format))
    return prepare_pytorch(model, place, precision, why_not or "it does not write text in float32")


def resolve_auto(device: str, precision: str) -> tuple[str, str]:
    """Return the device and precision that ``auto`` selects on this machine, so that they can be recorded.

    Raises:
        ConfigError: no such device.
    """
    place, precision = torch_device(device), full_dtype_name(precision)
    if precision == "auto":
        by_ours = place.type == "cpu" and unavailable() is None
        precision = remembered_number_format() if by_ours else precision_of("auto", place)
    return str(place), precision


def prepare_kernels(model: SequenceModel, number_format: NumberFormat) -> SequenceModel:
    """Lay out ``model`` for kernels of our own, as far as they know its parts; log how it will run."""
    if number_format == "int8" and library().uses_matrix_unit and wanted_kernels() == "on":
        library().use_int8_tiles_from(int(remembered_int8_rows()))
    pack(model, panels(number_format))
    try:
        if not isinstance(model, Transformer):
            raise UnknownToKernels(f"a model that is a {type(model).__name__}")
        model = NativeTransformer(model)
    except UnknownToKernels as part:
        log.info("decoding in %s: products by kernels of our own, steps by PyTorch, for %s", number_format, part)
    else:
        log.info("decoding in %s by kernels of our own", number_format)
    return model


def prepare_pytorch(model: AnyModel, place: torch.device, precision: str, why: str) -> AnyModel:
    """Lay out ``model`` for PyTorch's kernels; log ``why`` it does not run by our own."""
    if precision != "int8" and (precision := precision_of(precision, place)) == "bfloat16":
        model.bfloat16()
    log.info("decoding in %s by PyTorch: %s", precision, why)
    pack(model, Int8Linear if precision == "int8" else TransposedLinear)
    return model


def prepare_with_states(model: AnyModel, device: str, precision: str) -> AnyModel:
    """Lay out ``model`` for PyTorch's kernels, where the hidden states of its decoder can be seen.

    Raises:
        ConfigError: as ``prepare_for_inference``.
    """
    place, precision = _moved(model, device, precision)
    fold_weight_norm(model)
    return prepare_pytorch(model, place, precision, "the states of its decoder are looked up")


def _moved(model: nn.Module, device: str, precision: str) -> tuple[torch.device, str]:
    """Move ``model`` to a device; return the device, and the precision by its full name.

    Raises:
        ConfigError: no such device or precision, or a precision that this device does not support.
    """
    precision = full_dtype_name(precision)
    if precision not in get_args(DecodingPrecision):
        raise ConfigError(unknown("precision", precision, get_args(DecodingPrecision)))
    place = next(on_device(model, device).parameters()).device
    if precision == "int8" and place.type != "cpu":
        raise ConfigError(f"precision: int8 is for CPUs, and this is {place}: use bfloat16, or device cpu")
    return place, precision


def precision_of(precision: str, place: torch.device) -> str:
    """Same as ``choose_precision``, but a CPU's measurement is stored, so that every process chooses the same."""
    if precision != "auto" or place.type != "cpu":
        return choose_precision(cast(Precision, precision), place)
    return _known_or_float32(
        get_args(NumberFormat)[:2], cached_choice("precision of PyTorch", lambda: choose_precision("auto", place))
    )


def remembered_number_format() -> NumberFormat:
    """Return ``fastest_number_format`` as it was first measured on this machine."""
    unit = " with a matrix unit" if library().uses_matrix_unit else ""
    return _known_or_float32(
        get_args(NumberFormat)[:2], cached_choice(f"precision of kernels in C{unit}", fastest_number_format)
    )


def _known_or_float32(known: tuple[NumberFormat, ...], found: str) -> NumberFormat:
    return cast(NumberFormat, found) if found in known else "float32"  # somebody may have edited the file


@cache
def fastest_number_format() -> NumberFormat:
    """Return bfloat16 if its products are faster here than float32's, both for one row and for 64.

    The measurement takes milliseconds, once for each process. 8-bit integers are faster still, but round more, so they
    are only used on request.
    """
    if not (library().multiplies_bfloat16 or library().uses_matrix_unit):
        return "float32"
    seconds = {
        number_format: [seconds_of_product(number_format, rows) for rows in (1, 64)]
        for number_format in get_args(NumberFormat)[:2]
    }
    gains = [slow / fast for slow, fast in zip(seconds["float32"], seconds["bfloat16"], strict=True)]
    log.info("bfloat16 products take 1/%.1f of float32's time for one row, 1/%.1f for 64", *gains)
    return "bfloat16" if min(gains) > 1 else "float32"


def remembered_int8_rows() -> str:
    """Return ``fastest_int8_rows`` as it was first measured on this machine; every choice gives the same answers."""
    found = cached_choice("rows of int8 products of the matrix unit", fastest_int8_rows)
    return found if found.isdecimal() else fastest_int8_rows()


def fastest_int8_rows() -> str:
    """Return the number of rows from which the matrix unit multiplies faster than vectors do, as text."""
    kernels = library()

    def seconds(first: int) -> list[float]:
        kernels.use_int8_tiles_from(first)
        return [seconds_of_product("int8", rows) for rows in ROWS]

    in_tiles, in_vectors = seconds(1), seconds(ROWS[-1] + 1)
    slower = [rows for rows, tiles, vectors in zip(ROWS, in_tiles, in_vectors, strict=True) if tiles >= vectors]
    found = max(slower, default=0) + 1
    log.info("int8 products of %d rows and more are those of the matrix unit", found)
    return str(found)


def seconds_of_product(number_format: NumberFormat, rows: int, width: int = 512) -> float:
    """Return the shortest of several measured times: the others were disturbed."""
    layer, x, taken = Panels([nn.Linear(width, 4 * width)], number_format), torch.ones(rows, width), []
    for _ in range(10):
        began = time.perf_counter()
        layer(x)
        taken.append(time.perf_counter() - began)
    return min(taken)


def on_device(model: AnyModel, device: str) -> AnyModel:
    """Move ``model`` to a device, and leave it otherwise unchanged.

    Raises:
        ConfigError: no such device.
    """
    return model.to(torch_device(device))


def torch_device(device: str) -> torch.device:
    """Return the device that a name such as ``auto`` or ``cuda:1`` stands for.

    Raises:
        ConfigError: no such device.
        TypeError: no name.
    """
    check_kind(device, "device", (str, int, torch.device), what="a name such as cpu or cuda:0")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device}: {str(error).splitlines()[0]}") from None
