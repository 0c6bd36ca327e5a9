"""Where a model runs."""

from typing import TypeVar

import torch
from torch import nn

from dragoman.errors import ConfigError

Model = TypeVar("Model", bound=nn.Module)


def put(model: Model, device: str) -> Model:
    """The model on a device as torch names it; ``auto`` is the GPU if there is one.

    Raises:
        ConfigError: no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device}: {str(error).splitlines()[0]}") from None
