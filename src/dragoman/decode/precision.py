"""A trained model made ready to run: where, and in which numbers; chosen by the machine unless told otherwise."""

from typing import Literal, TypeVar, cast, get_args

import torch
from torch import nn

from dragoman.config import unknown
from dragoman.errors import ConfigError
from dragoman.machine import Precision, choose_precision, keep_memory
from dragoman.model.packed import Transposed, WholeNumbers, pack

Model = TypeVar("Model", bound=nn.Module)
DecodingPrecision = Literal["auto", "float32", "bfloat16", "int8"]


def made_ready(model: Model, device: str = "auto", precision: str = "auto") -> Model:
    """``model`` itself, on a device, with its weights laid out for decoding. Nothing learns after this.

    Args:
        model: as it was trained.
        device: as torch names it; ``auto`` is the GPU if there is one.
        precision: ``auto`` is bfloat16 where matrix units multiply it, else float32. ``int8`` is products of whole
            numbers of 8 bits, with scales by output and by row, and all else in float32: for CPUs.

    Raises:
        ConfigError: no such device or precision, or a precision that is not for this device.
    """
    if precision not in get_args(DecodingPrecision):
        raise ConfigError(unknown("precision", precision, get_args(DecodingPrecision)))
    place = next(on_device(model, device).parameters()).device
    if precision == "int8" and place.type != "cpu":
        raise ConfigError(f"precision: int8 is for CPUs, and this is {place}: use bfloat16, or device cpu")
    if precision != "int8" and choose_precision(cast(Precision, precision), place) == "bfloat16":
        model.bfloat16()
    pack(model, WholeNumbers if precision == "int8" else Transposed)
    keep_memory()
    return model


def on_device(model: Model, device: str) -> Model:
    """``model`` itself, there, and else as it was.

    Raises:
        ConfigError: no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device}: {str(error).splitlines()[0]}") from None
